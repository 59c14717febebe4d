"""The stages of a run and what names each one's output; imports nothing heavy, so that plans are fast."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

from pydantic import Field

from xclr import benchmarks, datafiles, heads
from xclr.artifact import Artifact, Digest, Manifest, digest, identity
from xclr.errors import DataError, RecipeError
from xclr.recipe import (
    NEEDS_CLASSES,
    RUNTIME,
    SUITES,
    Config,
    DataConfig,
    Dataset,
    GraphedConfig,
    ObjectiveConfig,
    PairsConfig,
    Precision,
    ProbeConfig,
    RandomConfig,
    Recipe,
    Reference,
    SuiteName,
    SupConConfig,
    TargetGraph,
    TrainConfig,
    graph_name,
    method_name,
    with_graph,
)
from xclr.store import Store
from xclr.textmodel import locate

LABELLED = frozenset({"emoji", "folder", "imagenet"})  # sources that always have classes
CLASS_GRAPHS = frozenset({"class_captions", "wordnet", "random_class"})  # similarities of all pairs of classes
OWN_TRAINING: frozenset[SuiteName] = frozenset({"finetune"})  # not for networks from elsewhere
SEEN = 10_000  # of a recipe's own pictures whose features are wanted for looking at alone
READ_FROM = {"captions": "embeddings", "random_pair": "embeddings", "knn": "graph"}  # artifact of the other graphs
Until = Literal["captions", "images", "embeddings", "graph", "pretrain", "evaluate", "compare"]  # where a run may stop
UNTIL: tuple[Until, ...] = get_args(Until)


class Progress(Protocol):
    """What a runner tells how far it is: items done and in all, and how many of the first came to something."""

    def __call__(self, done: int, total: int, ok: int | None = None, /) -> None:
        """Take note."""


class Produced(NamedTuple):
    """What a stage's runner leaves in its directory: files, numbers worth showing, folders no longer needed."""

    files: tuple[str, ...]
    stats: dict[str, Any]
    scratch: tuple[str, ...] = ()


class CaptionsConfig(Config):
    """Source tables, named by their content, and folders, by the names in them."""

    data: DataConfig
    sha256: tuple[str, ...]


class ImagesConfig(Config):
    """The same tables, and the files that pictures are read from, by name, size and time of change.

    A later generation tries again the rows of the one before whose status is among `retry`.
    """

    data: DataConfig
    sha256: tuple[str, ...]
    generation: int = 0
    retry: tuple[str, ...] = ()


class EmbeddingsConfig(Config):
    """The text model, named by the hash of its files.

    Where activations are quantised, what else is in a batch changes a vector: `pieces` (batch_tokens, shard) then names
    the output too.
    """

    weights: str
    precision: Precision = "float32"
    pieces: tuple[int | None, int] | None = None
    model: str = Field(json_schema_extra=RUNTIME)
    batch_tokens: int | None = Field(None, json_schema_extra=RUNTIME)
    shard: int = Field(1 << 15, json_schema_extra=RUNTIME)


class GraphKnnConfig(Config):
    """Nearest neighbours among the distinct captions; the approximate ones also depend on the recall asked for."""

    k: int
    cutoff: float | None
    method: Literal["exact", "approximate"] = "exact"
    recall: float | None = None
    part: int = Field(1 << 20, json_schema_extra=RUNTIME)
    block: int = Field(json_schema_extra=RUNTIME)


class ReportConfig(Config):
    """A page about the graph, for people."""

    dataset: str
    seed: int = 0


class ClassGraphConfig(Config):
    """A fixed similarity for every pair of classes; the text model and its template where class names are encoded."""

    source: str
    seed: int = 0
    weights: str | None = None
    template: str | None = None
    model: str | None = Field(None, json_schema_extra=RUNTIME)


class PretrainConfig(Config):
    """One pretraining: objective, schedule, seed."""

    objective: ObjectiveConfig
    train: TrainConfig
    seed: int
    dataset: str


class ReferenceConfig(Config):
    """A network from elsewhere; weights in a file are named by its content."""

    reference: Reference
    sha256: str | None = None
    dataset: str = "elsewhere"


class ExportConfig(Config):
    """The emoji's evaluation pictures in the layouts of the published data sets."""

    background: float
    seed: int = 0


class BenchmarkConfig(Config):
    """A data set's pictures and their labels, named by the names, sizes and times of its files."""

    dataset: Dataset
    listing: str | None = None  # None for one that the input `export` holds
    root: Path | None = Field(None, json_schema_extra=RUNTIME)


class FeaturesConfig(Config):
    """The frozen backbone's features of a recipe's own pictures: all, or so many."""

    sample: int | None = None
    shard: int = Field(50_000, json_schema_extra=RUNTIME)


class BenchmarkFeaturesConfig(Config):
    """The frozen backbone's features of a data set's pictures."""

    dataset: Dataset
    root: Path | None = Field(None, json_schema_extra=RUNTIME)
    shard: int = Field(50_000, json_schema_extra=RUNTIME)


class ProbeStageConfig(Config):
    """A linear head fitted to ImageNet's training pictures, which several suites apply."""

    probe: ProbeConfig
    seed: int


class FinetuneStageConfig(Config):
    """A backbone and a classifier trained further on ImageNet's training pictures."""

    train: TrainConfig
    seed: int
    root: Path | None = Field(None, json_schema_extra=RUNTIME)


class SuiteConfig(Config):
    """One suite on one checkpoint's features; what only some suites read is set for these alone."""

    suite: SuiteName
    bootstrap: int
    seed: int
    probe: ProbeConfig = ProbeConfig()
    prompts: tuple[str, ...] = ()
    weights: str | None = None  # of the text model
    precision: Precision = "float32"
    model: str | None = Field(None, json_schema_extra=RUNTIME)


class ComparisonConfig(Config):
    """The score table of a recipe."""

    dataset: str


KINDS: Mapping[str, tuple[type[Config], int]] = {  # config model and code version of each stage kind
    "captions": (CaptionsConfig, 3),
    "images": (ImagesConfig, 2),
    "embeddings": (EmbeddingsConfig, 2),
    "graph": (GraphKnnConfig, 2),
    "graph_report": (ReportConfig, 1),
    "class_graph": (ClassGraphConfig, 2),
    "pretrain": (PretrainConfig, 2),
    "reference": (ReferenceConfig, 1),
    "export": (ExportConfig, 1),
    "benchmark": (BenchmarkConfig, 1),
    "features": (FeaturesConfig, 2),
    "benchmark_features": (BenchmarkFeaturesConfig, 1),
    "probe": (ProbeStageConfig, 1),
    "finetune": (FinetuneStageConfig, 1),
    "suite": (SuiteConfig, 2),
    "comparison": (ComparisonConfig, 1),
}


@dataclass(frozen=True)
class Stage:
    """One step of a run: its kind, config and inputs name its output."""

    kind: str
    name: str  # for people
    config: Config
    inputs: Mapping[str, Artifact] = field(default_factory=dict)  # by role, in order

    @property
    def code(self) -> int:
        """Version of the code of this kind."""
        return KINDS[self.kind][1]

    @property
    def digest(self) -> Digest:
        """Name of the output."""
        return digest(self.kind, self.config, tuple(self.inputs.values()), self.code)

    @property
    def identity(self) -> dict[str, Any]:
        """The config as it enters the digest."""
        return dict(identity(self.config))  # type: ignore[call-overload, no-any-return]

    def to_json(self) -> str:
        """The stage as a job reads it."""
        inputs = {role: [str(each.digest), each.kind, str(each.path)] for role, each in self.inputs.items()}
        config = self.config.model_dump(mode="json")
        return json.dumps({"kind": self.kind, "name": self.name, "config": config, "inputs": inputs}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Stage:
        """The inverse of to_json."""
        raw = json.loads(text)
        inputs = {
            role: Artifact(kind, Digest(kind, name), Path(path)) for role, (name, kind, path) in raw["inputs"].items()
        }
        return cls(raw["kind"], raw["name"], KINDS[raw["kind"]][0].model_validate(raw["config"]), inputs)


def has_labels(recipe: Recipe) -> bool:
    """True when the samples have classes."""
    data = recipe.data
    return data.source in LABELLED or (data.source == "table" and data.label_column is not None)


def skipped(recipe: Recipe) -> list[str]:
    """Lines that say which objectives and suites the data cannot serve."""
    lines = []
    if not has_labels(recipe):
        why = "data.label_column" if recipe.data.source == "table" else f"{recipe.data.source} has none"
        if any(isinstance(each, SupConConfig) for each in recipe.objectives):
            lines.append(f"supcon is left out: it needs classes ({why})")
        if "linear" in recipe.evaluate.suites:
            lines.append(f"suite linear is left out: it needs classes ({why})")
    there = roots(recipe)
    for each in recipe.evaluate.suites:
        missing = [name for name in SUITES[each].datasets if name not in there]
        if missing and recipe.data.source != "emoji":
            lines.append(f"suite {each} is left out: evaluate.roots.{missing[0]} is not set")
    if recipe.data.source != "emoji":
        lines += [
            f"suite {each} is left out: only the emoji have its annotations"
            for each in recipe.evaluate.suites
            if each == "keywords"
        ]
    if not any(isinstance(each, PairsConfig) for each in recipe.objectives):
        lines += [
            f"suite {each} is left out: no objective is between pictures and captions"
            for each in recipe.evaluate.suites
            if SUITES[each].towers
        ]
    return lines


def objectives(recipe: Recipe) -> list[ObjectiveConfig]:
    """The recipe's objectives that its data can serve, their graphs filled in, after the untrained row."""
    filled = with_graph(recipe.objectives, recipe.graph)
    left_out = (RandomConfig,) if has_labels(recipe) else (RandomConfig, SupConConfig)
    chosen: list[ObjectiveConfig] = [RandomConfig(), *(each for each in filled if not isinstance(each, left_out))]
    graphs = [each.graph for each in chosen if isinstance(each, GraphedConfig) and each.graph]
    needy = [each.source for each in graphs if each.source in NEEDS_CLASSES]
    if needy and not has_labels(recipe):
        raise RecipeError(f"graph {needy[0]} needs classes", "set data.label_column, or graph.source: captions")
    return chosen


def suites(recipe: Recipe) -> list[SuiteName]:
    """The recipe's suites that its data can serve."""
    left_out = {line.split()[1] for line in skipped(recipe) if line.startswith("suite ")}
    return [suite for suite in recipe.evaluate.suites if suite not in left_out]


def suites_of(recipe: Recipe, objective: ObjectiveConfig | None) -> list[SuiteName]:
    """The suites that can judge an objective's checkpoint; None stands for a network from elsewhere."""
    chosen = [name for name in suites(recipe) if isinstance(objective, PairsConfig) or not SUITES[name].towers]
    return [name for name in chosen if objective is not None or name not in OWN_TRAINING]


def roots(recipe: Recipe) -> dict[Dataset, Path]:
    """Where the data sets of the suites lie; ImageNet's is that of the recipe where it trains on the folders."""
    found: dict[Dataset, Path] = {name: root.absolute() for name, root in recipe.evaluate.roots.items()}
    path = recipe.data.path
    if recipe.data.source == "imagenet" and path is not None and (path / datafiles.TRAIN).is_dir():
        found.setdefault("imagenet", path.absolute())
    return found


def datasets(recipe: Recipe) -> list[Dataset]:
    """The data sets that the recipe's suites read, each once."""
    return list(dict.fromkeys(each for name in suites(recipe) for each in SUITES[name].datasets))


def captions(recipe: Recipe, store: Store) -> Stage:
    """Read, normalise and deduplicate the captions; raises DataError when the data cannot be what the recipe says."""
    datafiles.check(recipe.data)
    data = recipe.data.for_captions
    names = datafiles.captions_listing(data)
    return Stage("captions", "captions", CaptionsConfig(data=data, sha256=_hashes(data, store, names)))


def images(recipe: Recipe, store: Store, captions: Artifact) -> Stage:
    """The current generation of the pictures, which others read; raises DataError when picture files are not there."""
    return image_generations(recipe, store, captions)[-1]


def image_generations(recipe: Recipe, store: Store, captions: Artifact) -> list[Stage]:
    """Fetch and check every picture and pack it into shards; then, a stage each, what `xclr retry` tries again."""
    data = recipe.data.model_copy(update={"allow_hosts": recipe.data.reachable, "url": None})
    config = ImagesConfig(data=data, sha256=_hashes(data, store, datafiles.pictures_listing(data)))
    found = [Stage("images", "images", config, {"captions": captions})]
    for generation, statuses in enumerate(heads.read(store, found[0].digest), start=1):
        later = config.model_copy(update={"generation": generation, "retry": statuses})
        inputs = {"captions": captions, "before": store.reference(found[-1].digest)}
        found.append(Stage("images", f"images, generation {generation}", later, inputs))
    return found


def _hashes(data: DataConfig, store: Store, listing: str | None) -> tuple[str, ...]:
    """Contents of the source's tables, and the hash of its listing of other files where it has one."""
    hashes = tuple(store.content_hash(path) for path in datafiles.source_files(data))
    return hashes if listing is None else (*hashes, listing)


def embeddings(recipe: Recipe, store: Store, captions: Artifact) -> Stage:
    """Encode each distinct caption once."""
    embed, folder = recipe.embed, locate(recipe.embed.model)
    config = EmbeddingsConfig(
        weights=store.content_hash(folder),
        precision=embed.precision,
        pieces=(embed.batch_tokens, embed.shard) if embed.precision == "int8" else None,
        model=str(folder),
        batch_tokens=embed.batch_tokens,
        shard=embed.shard,
    )
    return Stage("embeddings", "embeddings", config, {"captions": captions})


def graph(recipe: Recipe, captions: Artifact, embeddings: Artifact) -> Stage:
    """Nearest neighbours, as Parquet."""
    chosen = recipe.graph
    config = GraphKnnConfig(
        k=chosen.k, cutoff=chosen.cutoff, method=chosen.method, part=chosen.part, block=chosen.block,
        recall=chosen.recall if chosen.method == "approximate" else None,
    )  # fmt: skip
    return Stage("graph", "graph", config, {"captions": captions, "embeddings": embeddings})


def graph_report(recipe: Recipe, inputs: Mapping[str, Artifact]) -> Stage:
    """The page about the graph; `inputs`: captions, images, embeddings, graph."""
    roles = {role: inputs[role] for role in ("captions", "images", "embeddings", "graph")}
    return Stage("graph_report", "graph report", ReportConfig(dataset=recipe.data.source), roles)


def class_graph(recipe: Recipe, target: TargetGraph, store: Store, captions: Artifact, embeddings: Artifact) -> Stage:
    """A similarity for every pair of classes, as Parquet."""
    config, inputs = ClassGraphConfig(source=target.source, seed=target.seed), {"captions": captions}
    if target.source == "random_class":
        inputs["embeddings"] = embeddings
    if target.source == "class_captions":
        folder = locate(recipe.embed.model)
        template = recipe.data.caption_template
        config = ClassGraphConfig(
            source=target.source, weights=store.content_hash(folder), template=template, model=str(folder)
        )
    return Stage("class_graph", f"class graph {target.label}", config, inputs)


def class_graphs(recipe: Recipe) -> list[TargetGraph]:
    """The class graphs that the recipe's objectives need, each once."""
    graphs = [each.graph for each in objectives(recipe) if isinstance(each, GraphedConfig) and each.graph]
    return list(dict.fromkeys(each for each in graphs if each.source in CLASS_GRAPHS))


def trainings(recipe: Recipe) -> list[tuple[str, ObjectiveConfig, int]]:
    """Every pretraining of a recipe: title, objective, seed."""
    return [(f"{label(each)} seed {seed}", each, seed) for seed in recipe.seeds for each in objectives(recipe)]


def pretrain(recipe: Recipe, objective: ObjectiveConfig, seed: int, inputs: Mapping[str, Artifact]) -> Stage:
    """Pretrain one backbone; of `inputs` (captions, images, embeddings, class graphs) it takes what it needs."""
    roles = ["captions", "images"]
    train = recipe.train
    if isinstance(objective, RandomConfig):  # no schedule enters the name of an untrained backbone
        train = TrainConfig(backbone=train.backbone, width=train.width, image_size=train.image_size)
    if isinstance(objective, PairsConfig) and objective.text == "frozen":
        roles.append("embeddings")
    chosen = {role: inputs[role] for role in roles}
    if isinstance(objective, GraphedConfig) and objective.graph is not None:
        if objective.graph.source in CLASS_GRAPHS:
            chosen["class_graph"] = inputs[class_graph_role(objective.graph)]
        elif role := READ_FROM.get(objective.graph.source):
            chosen[role] = inputs[role]
    config = PretrainConfig(objective=objective, train=train, seed=seed, dataset=recipe.data.source)
    return Stage("pretrain", f"pretrain {label(objective)} seed {seed}", config, chosen)


def origin(config: Config) -> tuple[str, str, str, int]:
    """Method, data set, graph and seed of a network, from the config of the stage that makes it."""
    if isinstance(config, ReferenceConfig):
        return config.reference.label, config.dataset, Path(config.reference.weights).name, config.reference.seed
    assert isinstance(config, PretrainConfig)
    return method_name(config.objective), config.dataset, graph_name(config.objective), config.seed


def class_graph_role(target: TargetGraph) -> str:
    """The key of a class graph among a run's artifacts."""
    return f"class_graph:{target.label}"


def label(objective: ObjectiveConfig) -> str:
    """Method, and its graph where that is not the method's own."""
    return method_name(objective) + graph_suffix(objective)


def graph_suffix(objective: ObjectiveConfig) -> str:
    """The graph, where it is not the method's own, as it stands behind the method; else nothing."""
    graph = graph_name(objective)
    return f" ({graph})" if isinstance(objective, GraphedConfig) and graph != "captions" else ""


def reference(reference: Reference, store: Store) -> Stage:
    """Fetch a network from elsewhere, once, so that what follows needs no network."""
    path = Path(reference.weights)
    if reference.is_file and not path.is_file():
        raise RecipeError(f"there is no file {path}", f"give the weights of {reference.label} by a path or a name")
    sha256 = store.content_hash(path) if reference.is_file else None
    return Stage("reference", f"reference {reference.label}", ReferenceConfig(reference=reference, sha256=sha256))


def export(recipe: Recipe, captions: Artifact, images: Artifact) -> Stage:
    """The emoji's evaluation pictures in the layouts of the published data sets."""
    config = ExportConfig(background=recipe.train.background)
    return Stage("export", "export", config, {"captions": captions, "images": images})


def benchmark(recipe: Recipe, dataset: Dataset, export: Artifact | None) -> Stage:
    """A data set's pictures and labels; raises DataError where it is missing or partial."""
    root = roots(recipe).get(dataset)
    if root is None and export is not None:
        return Stage("benchmark", f"benchmark {dataset}", BenchmarkConfig(dataset=dataset), {"export": export})
    if root is None:
        raise RecipeError(f"evaluate.roots.{dataset} is not set", "say where it lies, or leave its suites out")
    config = BenchmarkConfig(dataset=dataset, listing=benchmarks.listing(dataset, root), root=root)
    return Stage("benchmark", f"benchmark {dataset}", config)


def features(recipe: Recipe, title: str, checkpoint: Artifact, inputs: Mapping[str, Artifact]) -> Stage:
    """One forward pass of the frozen backbone over the recipe's own pictures, or over some for looking at."""
    judged = any(SUITES[name].pictures is None and not SUITES[name].towers for name in suites(recipe))
    config = FeaturesConfig(sample=None if judged else SEEN, shard=recipe.evaluate.shard)
    roles = {"checkpoint": checkpoint, "captions": inputs["captions"], "images": inputs["images"]}
    return Stage("features", name_of("features", title), config, roles)


def benchmark_features(recipe: Recipe, title: str, dataset: Dataset, inputs: Mapping[str, Artifact]) -> Stage:
    """One forward pass of the frozen backbone over a data set's pictures; `inputs`: checkpoint, benchmark:<dataset>."""
    config = BenchmarkFeaturesConfig(dataset=dataset, root=roots(recipe).get(dataset), shard=recipe.evaluate.shard)
    return Stage("benchmark_features", name_of(f"features:{dataset}", title), config, _files(recipe, dataset, inputs))


def probe(recipe: Recipe, title: str, inputs: Mapping[str, Artifact]) -> Stage:
    """Fit the linear head to ImageNet's training pictures; `inputs`: checkpoint and ImageNet's features and labels."""
    config = ProbeStageConfig(probe=recipe.evaluate.probe, seed=recipe.evaluate.seed)
    roles = {"checkpoint": "checkpoint", "features": "features:imagenet", "labels": "benchmark:imagenet"}
    return Stage("probe", name_of("probe", title), config, {role: inputs[name] for role, name in roles.items()})


def finetune(recipe: Recipe, title: str, inputs: Mapping[str, Artifact]) -> Stage:
    """Train a checkpoint's backbone and a classifier on ImageNet's pictures; `inputs` as benchmark_features."""
    chosen, views = recipe.evaluate.finetune, recipe.train.views
    train = recipe.train.model_copy(
        update=chosen.model_dump()
        | {
            "optimizer": "sgd",
            "lr_rule": "absolute",
            "fraction": 1.0,
            "shuffle_shards": None,
            "views": "simclr" if views == "stickers" else views,
        }
    )
    config = FinetuneStageConfig(train=train, seed=recipe.evaluate.seed, root=roots(recipe).get("imagenet"))
    return Stage("finetune", name_of("finetune", title), config, _files(recipe, "imagenet", inputs))


def _files(recipe: Recipe, dataset: Dataset, inputs: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The inputs of a stage that reads a data set's pictures."""
    roles = {"checkpoint": inputs["checkpoint"], "benchmark": inputs[f"benchmark:{dataset}"]}
    return roles | ({"export": inputs["export"]} if dataset not in roots(recipe) else {})


def roles_of(name: SuiteName) -> dict[str, str]:
    """The inputs of a suite: its own name for each, and the name among a run's artifacts."""
    needs = SUITES[name]
    roles = {"features": f"features:{needs.pictures}" if needs.pictures else "features", "checkpoint": "checkpoint"}
    roles["labels"] = f"benchmark:{needs.labels}" if needs.labels else "captions"
    if name == "finetune":
        roles["features"] = "finetune"
    if needs.labels != needs.pictures:
        roles["names"] = f"benchmark:{needs.pictures}"
    return roles | ({"probe": "probe"} if needs.probe else {})


def suite(recipe: Recipe, name: SuiteName, title: str, inputs: Mapping[str, Artifact], store: Store) -> Stage:
    """One suite on one checkpoint's features; `inputs` by the names that roles_of gives."""
    evaluate = recipe.evaluate
    config = SuiteConfig(suite=name, bootstrap=evaluate.bootstrap, seed=evaluate.seed)
    if name in {"linear", "mit-states", "few-shot"}:
        config = config.model_copy(update={"probe": evaluate.probe})
    if SUITES[name].towers:
        folder = locate(recipe.embed.model)
        text = {"weights": store.content_hash(folder), "model": str(folder), "precision": recipe.embed.precision}
        config = config.model_copy(update={"prompts": evaluate.prompts} | text)
    return Stage("suite", f"{name} {title}", config, {role: inputs[own] for role, own in roles_of(name).items()})


def comparison(recipe: Recipe, results: Sequence[Artifact]) -> Stage:
    """All scores of a run in one table."""
    roles = {f"scores{index}": each for index, each in enumerate(results)}
    return Stage("comparison", "comparison", ComparisonConfig(dataset=recipe.data.source), roles)


def data_stages(recipe: Recipe, store: Store) -> dict[str, Stage]:
    """The stages that a training reads from, by role, in the order in which they can run."""

    def made(role: str) -> Artifact:
        return store.reference(found[role].digest)

    found = {"captions": captions(recipe, store)}
    *earlier, found["images"] = image_generations(recipe, store, made("captions"))
    found = {"captions": found["captions"]} | {f"images:{place}": each for place, each in enumerate(earlier)} | found
    found["embeddings"] = embeddings(recipe, store, made("captions"))
    found["graph"] = graph(recipe, made("captions"), made("embeddings"))
    found["graph_report"] = graph_report(recipe, {role: made(role) for role in found})
    for target in class_graphs(recipe):
        found[class_graph_role(target)] = class_graph(recipe, target, store, made("captions"), made("embeddings"))
    return found


def references(recipe: Recipe, store: Store) -> dict[str, Artifact]:
    """Where the data stages' outputs are or will be, by role, and the checkpoints, by title."""
    made = {role: store.reference(stage.digest) for role, stage in data_stages(recipe, store).items()}
    trained = {title: pretrain(recipe, each, seed, made) for title, each, seed in trainings(recipe)}
    outside = {each.label: reference(each, store) for each in recipe.evaluate.references}
    return made | {title: store.reference(stage.digest) for title, stage in (trained | outside).items()}


def evaluation_data(recipe: Recipe, store: Store, made: Mapping[str, Artifact]) -> dict[str, Stage]:
    """The stages that read the suites' data sets, by role, in the order in which they can run."""
    found: dict[str, Stage] = {}
    wanted, exported = datasets(recipe), None
    if recipe.data.source == "emoji" and any(each not in roots(recipe) for each in wanted):
        found["export"] = export(recipe, made["captions"], made["images"])
        exported = store.reference(found["export"].digest)
    return found | {f"benchmark:{each}": benchmark(recipe, each, exported) for each in wanted}


def judged_by(recipe: Recipe, objective: ObjectiveConfig | None) -> tuple[list[SuiteName], list[str]]:
    """The suites of a checkpoint, and what they read that is made of it: features, features:imagenet, probe, ..."""
    chosen = suites_of(recipe, objective)
    own = {own for name in chosen for own in roles_of(name).values()}
    own |= {"features"} if objective is not None else set()  # for the sheet of nearest neighbours
    made = ["features", *(f"features:{each}" for each in datasets(recipe)), "probe", "finetune"]
    if "probe" in own:
        own.add("features:imagenet")
    return chosen, [each for each in made if each in own]


def name_of(what: str, title: str) -> str:
    """What people call the stage that makes what judged_by names."""
    kind, _, dataset = what.partition(":")
    return f"finetuning {title}" if kind == "finetune" else f"{kind}{' of ' * bool(dataset)}{dataset} {title}"


def inputs_of(recipe: Recipe, what: str) -> list[str]:
    """What made_of reads of a run's artifacts to make what judged_by names."""
    kind, _, dataset = what.partition(":")
    if kind == "probe":
        return ["checkpoint", "features:imagenet", "benchmark:imagenet"]
    if kind == "features" and not dataset:
        return ["checkpoint", "captions", "images"]
    dataset = dataset or "imagenet"
    return ["checkpoint", f"benchmark:{dataset}", *([] if dataset in roots(recipe) else ["export"])]


def made_of(recipe: Recipe, what: str, title: str, inputs: Mapping[str, Artifact]) -> Stage:
    """The stage that makes what judged_by names of a checkpoint; `inputs` by the names of a run's artifacts."""
    kind, _, dataset = what.partition(":")
    if kind == "probe":
        return probe(recipe, title, inputs)
    if kind == "finetune":
        return finetune(recipe, title, inputs)
    if dataset:
        return benchmark_features(recipe, title, dataset, inputs)  # type: ignore[arg-type]
    return features(recipe, title, inputs["checkpoint"], inputs)


def pipeline(recipe: Recipe, store: Store) -> list[Stage]:
    """Every stage of a recipe in the order in which they can run; touches nothing."""

    def add(stage: Stage) -> Artifact:
        stages.append(stage)
        return store.reference(stage.digest)

    stages: list[Stage] = []
    made = {role: add(stage) for role, stage in data_stages(recipe, store).items()}
    made |= {role: add(stage) for role, stage in evaluation_data(recipe, store, made).items()}
    scores = []
    for title, objective, stage in checkpoints(recipe, store, made):
        own = made | {"checkpoint": add(stage)}
        chosen, wanted = judged_by(recipe, objective)
        for what in wanted:
            own[what] = add(made_of(recipe, what, title, own))
        scores += [add(suite(recipe, name, title, own, store)) for name in chosen]
    add(comparison(recipe, scores))
    return stages


def checkpoints(
    recipe: Recipe, store: Store, made: Mapping[str, Artifact]
) -> Iterator[tuple[str, ObjectiveConfig | None, Stage]]:
    """Every network that is judged: title, objective (None for one from elsewhere), the stage that makes it."""
    for title, objective, seed in trainings(recipe):
        yield title, objective, pretrain(recipe, objective, seed, made)
    for each in recipe.evaluate.references:
        yield each.label, None, reference(each, store)


def reaches(until: Until, stage: Until) -> bool:
    """True when a run that stops after `until` runs `stage`."""
    return UNTIL.index(until) >= UNTIL.index(stage)


def check_sizes(recipe: Recipe, captions: Manifest) -> None:
    """Raise DataError when the data are too few for the recipe, before any long work."""
    train, distinct = recipe.train, int(captions.stats["distinct"])
    seen = train.seen(int(captions.stats["train"]))
    if train.batch_size > seen:
        left, more = f" that train.fraction {train.fraction} leaves", ", or a larger train.fraction"
        raise DataError(
            f"train.batch_size {train.batch_size} is larger than the {seen} training pictures"
            f"{left * (train.fraction < 1)}",
            f"--set train.batch_size={max(2, seen // 2)}{more * (train.fraction < 1)}",
        )
    if recipe.graph.k >= distinct:
        raise DataError(
            f"graph.k {recipe.graph.k} needs more than {distinct} distinct captions",
            f"--set graph.k={max(1, distinct - 1)}",
        )


def left_out(captions: Manifest) -> list[str]:
    """Lines that say what of a source became no caption."""
    stats, lines = captions.stats, []
    if malformed := stats.get("malformed"):
        which = stats["malformed_samples"] if "malformed_samples" in stats else f"lines {stats['malformed_lines']}"
        lines.append(f"captions: left out as malformed: {malformed:,} ({which})")
    if repeated := stats.get("repeated_urls"):
        lines.append(f"captions: left out because their address stood before: {repeated:,}")
    return lines


def precision_lost(embeddings: Manifest) -> str | None:
    """A line that says what a precision below float32 cost; None at float32."""
    stats = embeddings.stats
    if "loss_mean" not in stats:
        return None
    return (
        f"embeddings: {stats['precision']} moves a caption by 1 - cos = {stats['loss_mean']:.1e} in the mean and "
        f"{stats['loss_max']:.1e} at most, and a similarity by {stats['similarity_moved']:.1e} in the mean "
        f"(of {stats['loss_sample']} captions, against float32)"
    )


def check_pictures(recipe: Recipe, images: Manifest) -> None:
    """Raise DataError when too few pictures can be used for the recipe, before any training."""
    usable, rows = int(images.stats.get("ok", 0)), int(images.stats["rows"])
    if usable >= recipe.train.batch_size:
        return
    lost = ", ".join(f"{images.stats[each]} {each}" for each in heads.STATUSES if each != "ok" and each in images.stats)
    raise DataError(
        f"{usable} of {rows} pictures can be used ({lost or 'no others'}), fewer than train.batch_size "
        f"{recipe.train.batch_size}",
        f"--set train.batch_size={max(2, usable // 2)}, or mend the rows that images.parquet says are lost",
    )
