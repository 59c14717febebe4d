"""The stages of a run and what names each one's output; imports nothing heavy, so that plans are fast."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

from pydantic import Field

from xclr import datafiles, heads
from xclr.artifact import Artifact, Digest, Manifest, digest, identity
from xclr.errors import DataError, RecipeError
from xclr.recipe import (
    NEEDS_CLASSES,
    ROOT_OF,
    RUNTIME,
    Config,
    DataConfig,
    GraphedConfig,
    ObjectiveConfig,
    PairsConfig,
    Precision,
    RandomConfig,
    Recipe,
    SupConConfig,
    TargetGraph,
    TrainConfig,
    graph_name,
    method_name,
    with_graph,
)
from xclr.schema import STATUSES
from xclr.store import Store
from xclr.textmodel import locate

LABELLED = frozenset({"emoji", "folder", "imagenet"})  # sources that always have classes
CLASS_GRAPHS = frozenset({"class_captions", "wordnet", "random_class"})  # similarities of all pairs of classes
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


class FeaturesConfig(Config):
    """Which renderings of the pictures go through the frozen backbone."""

    backgrounds: bool
    background: float


class FolderFeaturesConfig(Config):
    """A benchmark's class folders, named by the names, sizes and times of their files."""

    dataset: str
    listing: str
    root: Path = Field(json_schema_extra=RUNTIME)


class SuiteConfig(Config):
    """One suite on one checkpoint's features."""

    suite: str
    bootstrap: int
    seed: int


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
    "pretrain": (PretrainConfig, 1),
    "features": (FeaturesConfig, 1),
    "folder_features": (FolderFeaturesConfig, 1),
    "suite": (SuiteConfig, 1),
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
    lines += [
        f"suite {each} is left out: evaluate.roots.{ROOT_OF[each]} is not set"
        for each in recipe.evaluate.suites
        if each in ROOT_OF and ROOT_OF[each] not in recipe.evaluate.roots
    ]
    if recipe.data.source != "emoji":
        lines += [
            f"suite {each} is left out: only the emoji have its annotations"
            for each in recipe.evaluate.suites
            if each in {"keywords", "background"}
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


def suites(recipe: Recipe) -> list[str]:
    """The recipe's suites that its data can serve."""
    left_out = {line.split()[1] for line in skipped(recipe) if line.startswith("suite ")}
    return [suite for suite in recipe.evaluate.suites if suite not in left_out]


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


def class_graph_role(target: TargetGraph) -> str:
    """The key of a class graph among a run's artifacts."""
    return f"class_graph:{target.label}"


def label(objective: ObjectiveConfig) -> str:
    """Method, and its graph where that is not the method's own."""
    graph = graph_name(objective)
    return method_name(objective) + (
        f" ({graph})" if isinstance(objective, GraphedConfig) and graph != "captions" else ""
    )


def features(recipe: Recipe, title: str, checkpoint: Artifact, inputs: Mapping[str, Artifact]) -> Stage:
    """One forward pass of the frozen backbone over every picture and rendering."""
    config = FeaturesConfig(backgrounds=recipe.data.source == "emoji", background=recipe.train.background)
    roles = {"checkpoint": checkpoint, "captions": inputs["captions"], "images": inputs["images"]}
    return Stage("features", f"features {title}", config, roles)


def folder_features(recipe: Recipe, title: str, checkpoint: Artifact, dataset: str) -> Stage:
    """One forward pass of the frozen backbone over the pictures of a benchmark's train and val folders."""
    root = Path(recipe.evaluate.roots[dataset]).absolute()  # type: ignore[index]
    listing = datafiles.benchmark_listing(root)
    config = FolderFeaturesConfig(dataset=dataset, listing=listing, root=root)
    return Stage("folder_features", f"features of {dataset} {title}", config, {"checkpoint": checkpoint})


def benchmarks(recipe: Recipe) -> list[str]:
    """The data sets that the recipe's suites bring, each once."""
    return list(dict.fromkeys(ROOT_OF[name] for name in suites(recipe) if name in ROOT_OF))


def suite(recipe: Recipe, name: str, title: str, inputs: Mapping[str, Artifact]) -> Stage:
    """One suite on one checkpoint's features; `inputs`: checkpoint, captions, features and `features:<benchmark>`."""
    config = SuiteConfig(suite=name, bootstrap=recipe.evaluate.bootstrap, seed=recipe.evaluate.seed)
    if name in ROOT_OF:
        roles = {"features": inputs[f"features:{ROOT_OF[name]}"], "checkpoint": inputs["checkpoint"]}
    else:
        roles = {role: inputs[role] for role in ("features", "checkpoint", "captions")}
    return Stage("suite", f"{name} {title}", config, roles)


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
    return made | {title: store.reference(stage.digest) for title, stage in trained.items()}


def pipeline(recipe: Recipe, store: Store) -> list[Stage]:
    """Every stage of a recipe in the order in which they can run; touches nothing."""

    def add(stage: Stage) -> Artifact:
        stages.append(stage)
        return store.reference(stage.digest)

    stages: list[Stage] = []
    made = {role: add(stage) for role, stage in data_stages(recipe, store).items()}
    scores = []
    for title, objective, seed in trainings(recipe):
        checkpoint = add(pretrain(recipe, objective, seed, made))
        own = made | {"checkpoint": checkpoint, "features": add(features(recipe, title, checkpoint, made))}
        for dataset in benchmarks(recipe):
            own[f"features:{dataset}"] = add(folder_features(recipe, title, checkpoint, dataset))
        scores += [add(suite(recipe, name, title, own)) for name in suites(recipe)]
    add(comparison(recipe, scores))
    return stages


def reaches(until: Until, stage: Until) -> bool:
    """True when a run that stops after `until` runs `stage`."""
    return UNTIL.index(until) >= UNTIL.index(stage)


def check_sizes(recipe: Recipe, captions: Manifest) -> None:
    """Raise DataError when the data are too few for the recipe, before any long work."""
    trained, distinct = int(captions.stats["train"]), int(captions.stats["distinct"])
    if recipe.train.batch_size > trained:
        raise DataError(
            f"train.batch_size {recipe.train.batch_size} is larger than the {trained} training pictures",
            f"--set train.batch_size={max(2, trained // 2)}",
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
    lost = ", ".join(f"{images.stats[each]} {each}" for each in STATUSES if each != "ok" and each in images.stats)
    raise DataError(
        f"{usable} of {rows} pictures can be used ({lost or 'no others'}), fewer than train.batch_size "
        f"{recipe.train.batch_size}",
        f"--set train.batch_size={max(2, usable // 2)}, or mend the rows that images.parquet says are lost",
    )
