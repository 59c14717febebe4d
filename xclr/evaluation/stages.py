"""The stage kinds of the evaluation: data sets, networks from elsewhere, features, heads, suites and their table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from xclr.artifact import Artifact
from xclr.errors import RecipeError
from xclr.evaluation.datasets import listing
from xclr.graph.textmodel import given_model, text_model
from xclr.ilsvrc import is_unpacked
from xclr.images.stages import tell_unreadable
from xclr.recipe import (
    LATER,
    RUNTIME,
    SOURCES,
    SUITES,
    Config,
    DataConfig,
    Dataset,
    Framing,
    ObjectiveConfig,
    PairsConfig,
    Precision,
    ProbeConfig,
    Recipe,
    Reference,
    SuiteName,
    TrainConfig,
)
from xclr.stage import Given, Kind, Origin, Pieces, Plan, Stage
from xclr.store import Store
from xclr.training.stages import JudgedNetwork, given_file, with_decoder

OFFICIAL: Mapping[Dataset, Framing] = {"imagenet9": "whole", "objectnet": "template"}  # others as ImageNet
SEEN = 10_000  # of a recipe's own pictures whose features are wanted for looking at alone


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
    framing: Framing = Field("standard", json_schema_extra=LATER)
    root: Path | None = Field(None, json_schema_extra=RUNTIME)
    shard: int = Field(50_000, json_schema_extra=RUNTIME)


class ProbeStageConfig(Config):
    """A linear head fitted to ImageNet's training pictures, which several suites apply."""

    probe: ProbeConfig
    seed: int


class FinetuneStageConfig(Config):
    """A backbone and a classifier trained further on training pictures, of ImageNet or a recipe's own."""

    train: TrainConfig
    seed: int
    own: bool = Field(False, json_schema_extra=LATER)  # the recipe's own pictures, not ImageNet's
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
    crossed: bool = Field(False, json_schema_extra=LATER)  # a head's settings are chosen on several splits where few
    paired: bool = Field(False, json_schema_extra=LATER)  # the gap's resamples take one foreground in both variants
    once: bool = Field(False, json_schema_extra=LATER)  # pictures of several captions count once
    model: str | None = Field(None, json_schema_extra=RUNTIME)


class ComparisonConfig(Config):
    """The score table of a recipe."""

    dataset: str


def cut_own(stage: Stage[FeaturesConfig], store: Store) -> Pieces:
    """A shard holds `evaluate.shard` of the recipe's own pictures."""
    rows = int(store.manifest(stage.inputs["captions"]).stats["rows"])
    items = min(rows, stage.config.sample or rows)
    return Pieces(items, -(-items // stage.config.shard))


def cut_benchmark(stage: Stage[BenchmarkFeaturesConfig], store: Store) -> Pieces:
    """A shard holds `evaluate.shard` of a data set's pictures."""
    items = int(store.manifest(stage.inputs["benchmark"]).stats["rows"])
    return Pieces(items, -(-items // stage.config.shard))


def describe(config: ReferenceConfig) -> Origin:
    """A network from elsewhere as tables name it: its weights stand where the graph does."""
    reference = config.reference
    return Origin(reference.label, config.dataset, Path(reference.weights).name, reference.seed)


def given_data_set(config: BenchmarkConfig, store: Store) -> Iterator[Given]:
    """The folder of a data set that has one."""
    if (root := config.root) is not None and config.listing is not None:
        yield Given(f"data set {config.dataset}", (root,), (config.listing,), lambda: (listing(config.dataset, root),))


REFERENCE = Kind(
    "reference",
    ReferenceConfig,
    code=1,
    run="xclr.evaluation.reference",
    step="evaluate",
    network=describe,
    given=lambda config, store: given_file("weights", Path(config.reference.weights), config.sha256, store),
)
EXPORT = Kind("export", ExportConfig, code=1, run="xclr.evaluation.export.write", step="evaluate")
BENCHMARK = Kind(
    "benchmark",
    BenchmarkConfig,
    code=1,
    run="xclr.evaluation.benchmark",
    step="evaluate",
    part=lambda config: config.dataset,
    given=given_data_set,
)
FEATURES = Kind(
    "features",
    FeaturesConfig,
    code=2,
    run="xclr.evaluation.features",
    step="evaluate",
    pieces=cut_own,
    tell=tell_unreadable,
)
BENCHMARK_FEATURES = Kind(
    "benchmark_features",
    BenchmarkFeaturesConfig,
    code=1,
    run="xclr.evaluation.features",
    step="evaluate",
    part=lambda config: config.dataset,
    words="features",
    pieces=cut_benchmark,
)
PROBE = Kind("probe", ProbeStageConfig, code=1, run="xclr.evaluation.probe", step="evaluate")
FINETUNE = Kind(
    "finetune",
    FinetuneStageConfig,
    code=3,
    run="xclr.evaluation.finetune",
    step="evaluate",
    part=lambda config: "own" if config.own else "",
    ranks=lambda config: config.train.stuck_after_s,
    tell=tell_unreadable,
)
SUITE = Kind(
    "suite",
    SuiteConfig,
    code=2,
    run="xclr.evaluation.suite",
    step="evaluate",
    part=lambda config: config.suite,
    judges=True,
    given=lambda config, store: given_model(config.weights, config.model, store),
)
COMPARISON = Kind(
    "comparison",
    ComparisonConfig,
    code=1,
    run="xclr.evaluation.comparison",
    step="compare",
)
KINDS = (REFERENCE, EXPORT, BENCHMARK, FEATURES, BENCHMARK_FEATURES, PROBE, FINETUNE, SUITE, COMPARISON)


class DataSets(NamedTuple):
    """What networks are judged on: the recipe's own pictures, or others, and those of the suites' data sets."""

    captions: Artifact
    images: Artifact
    export: Artifact | None  # the data sets of the emoji, which have no root of their own
    benchmarks: Mapping[Dataset, Artifact]
    several: bool = False  # whether some of the captions are of one picture


class NetworkOutputs(NamedTuple):
    """What suites read of a network."""

    checkpoint: Artifact
    features: Mapping[Dataset | None, Artifact]  # None: of the recipe's own pictures
    probe: Artifact | None
    tuned: Mapping[Dataset | None, Artifact]  # by what they were trained on


def roots(recipe: Recipe) -> dict[Dataset, Path]:
    """Where the data sets of the suites lie; ImageNet's is that of the recipe where it trains on the folders."""
    found: dict[Dataset, Path] = {name: root.absolute() for name, root in recipe.evaluate.roots.items()}
    path = recipe.data.path
    if recipe.data.source == "imagenet" and path is not None and is_unpacked(path):
        found.setdefault("imagenet", path.absolute())
    return found


def lacks(recipe: Recipe) -> dict[SuiteName, str]:
    """Why some of the recipe's suites are left out: what each of them lacks."""
    found: dict[SuiteName, str] = {}
    annotated, there = SOURCES[recipe.judged.source].annotated, roots(recipe)
    for each in recipe.evaluate.suites:
        missing = [name for name in SUITES[each].datasets if name not in there]
        if SUITES[each].classes and not recipe.judged.has_labels:
            found[each] = f"it needs classes ({_no_labels(recipe.judged, recipe.evaluate.data is not None)})"
        elif missing and not annotated:
            found[each] = f"evaluate.roots.{missing[0]} is not set"
        elif SUITES[each].annotated and not annotated:
            found[each] = "only the emoji have its annotations"
        elif SUITES[each].drawn and not SOURCES[recipe.judged.source].drawn:
            found[each] = "only scenes have known factors"
        elif SUITES[each].towers and not learns_captions(recipe):
            found[each] = "no objective is between pictures and captions"
    return found


def learns_captions(recipe: Recipe) -> bool:
    """Whether an objective is between pictures and captions."""
    return any(isinstance(each, PairsConfig) for each in recipe.objectives)


def check_suites(recipe: Recipe, asked: Sequence[SuiteName] = ()) -> None:
    """Raise RecipeError when the data can serve none of the suites that were asked for, else of the recipe's."""
    left_out, wanted = lacks(recipe), asked or recipe.evaluate.suites
    if not wanted or any(name not in left_out for name in wanted):
        return
    every = recipe.evaluate.model_copy(update={"suites": tuple(SUITES)})
    others = lacks(recipe.model_copy(update={"evaluate": every}))
    served = ", ".join(name for name in SUITES if name not in others)
    raise RecipeError(
        "; ".join(f"suite {name} is left out: {left_out[name]}" for name in wanted),
        "give what is missing" + (f", or choose a suite that these data can serve: {served}" if served else ""),
    )


def tell_skipped(recipe: Recipe) -> list[str]:
    """Lines that say which objectives and suites the data cannot serve."""
    needy = (
        () if recipe.data.has_labels else (each for each in recipe.objectives if each.targets in {"class", "concept"})
    )
    lines = dict.fromkeys(f"{each.name} is left out: it needs classes ({_no_labels(recipe.data)})" for each in needy)
    return [*lines] + [f"suite {name} is left out: {why}" for name, why in lacks(recipe).items()]


def _no_labels(data: DataConfig, others: bool = False) -> str:
    key = f"{'evaluate.' if others else ''}data.label_column"
    return key if SOURCES[data.source].labels == "column" else f"{data.source} has none"


def suites(recipe: Recipe) -> list[SuiteName]:
    """The recipe's suites that its data can serve."""
    left_out = lacks(recipe)
    return [name for name in recipe.evaluate.suites if name not in left_out]


def suites_of(recipe: Recipe, objective: ObjectiveConfig | None) -> list[SuiteName]:
    """The suites that can judge an objective's checkpoint; None stands for a network from elsewhere."""
    chosen = [name for name in suites(recipe) if isinstance(objective, PairsConfig) or not SUITES[name].towers]
    return [name for name in chosen if objective is not None or not SUITES[name].trains]


def datasets(recipe: Recipe) -> list[Dataset]:
    """The data sets that the recipe's suites read, each once."""
    return list(dict.fromkeys(each for name in suites(recipe) for each in SUITES[name].datasets))


def references(recipe: Recipe, store: Store) -> list[JudgedNetwork]:
    """The networks from elsewhere; those of one name are called by their weights and seed too."""
    times = Counter(each.label for each in recipe.evaluate.references)
    titles = [
        each.label if times[each.label] == 1 else f"{each.label} {each.weights} seed {each.seed}"
        for each in recipe.evaluate.references
    ]
    made = (reference(each, title, store) for each, title in zip(recipe.evaluate.references, titles, strict=True))
    return [JudgedNetwork(title, None, stage) for title, stage in zip(titles, made, strict=True)]


def reference(reference: Reference, title: str, store: Store) -> Stage[ReferenceConfig]:
    """Fetch a network from elsewhere, once, so that what follows needs no network."""
    path = Path(reference.weights)
    if reference.is_file and not path.is_file():
        raise RecipeError(f"there is no file {path}", f"give the weights of {reference.label} by a path or a name")
    sha256 = store.content_hash(path) if reference.is_file else None
    return Stage(REFERENCE, f"reference {title}", ReferenceConfig(reference=reference, sha256=sha256))


def data_sets(plan: Plan, captions: Artifact, images: Artifact) -> DataSets:
    """Add the stages that read the data sets of the suites."""
    recipe, wanted, exported = plan.recipe, datasets(plan.recipe), None
    if SOURCES[recipe.judged.source].annotated and any(each not in roots(recipe) for each in wanted):
        exported = plan.add(export(recipe, captions, images))
    benchmarks = {each: plan.add(benchmark(recipe, each, exported)) for each in wanted}
    return DataSets(captions, images, exported, benchmarks, plan.stages[captions.digest].config.several)


def export(recipe: Recipe, captions: Artifact, images: Artifact) -> Stage[ExportConfig]:
    """The emoji's evaluation pictures in the layouts of the published data sets."""
    config = ExportConfig(background=recipe.train.background)
    return Stage(EXPORT, "export", config, {"captions": captions, "images": images})


def benchmark(recipe: Recipe, dataset: Dataset, export: Artifact | None) -> Stage[BenchmarkConfig]:
    """A data set's pictures and labels; raises DataError where it is missing or partial."""
    root = roots(recipe).get(dataset)
    if root is None and export is not None:
        return Stage(BENCHMARK, f"benchmark {dataset}", BenchmarkConfig(dataset=dataset), {"export": export})
    if root is None:
        raise RecipeError(f"evaluate.roots.{dataset} is not set", "say where it lies, or leave its suites out")
    config = BenchmarkConfig(dataset=dataset, listing=listing(dataset, root), root=root)
    return Stage(BENCHMARK, f"benchmark {dataset}", config)


def judge(plan: Plan, network: JudgedNetwork, data: DataSets) -> list[Artifact]:
    """Add a network, what its suites read of it, and the suites; returns where their scores are.

    Each picture passes the frozen backbone once, however many suites read its features.
    """
    recipe, checkpoint = plan.recipe, plan.add(network.stage)
    chosen = suites_of(recipe, network.objective)
    shown = {SUITES[name].pictures for name in chosen if not SUITES[name].trains}
    frozen: dict[Dataset | None, Artifact] = {}  # features by data set; None: of the recipe's own pictures
    if None in shown or network.objective is not None:  # the page of nearest neighbours shows its own
        frozen[None] = plan.add(features(recipe, network.title, checkpoint, data))
    for dataset in datasets(recipe):
        if dataset in shown:
            frozen[dataset] = plan.add(benchmark_features(recipe, network.title, checkpoint, dataset, data))
    head = None
    if any(SUITES[name].probe for name in chosen):
        head = plan.add(probe(recipe, network.title, checkpoint, frozen["imagenet"], data))
    on = dict.fromkeys(SUITES[name].pictures for name in chosen if SUITES[name].trains)
    tuned = {each: plan.add(finetune(recipe, network.title, checkpoint, data, each)) for each in on}
    made = NetworkOutputs(checkpoint, frozen, head, tuned)
    suites = (suite(recipe, name, network.title, read(name, made, data), plan.store) for name in chosen)
    return [plan.add(counting_once(each) if data.several else each) for each in suites]


def read(name: SuiteName, made: NetworkOutputs, data: DataSets) -> dict[str, Artifact]:
    """The inputs of a suite, by role."""
    needs = SUITES[name]
    inputs = {
        "features": (made.tuned if needs.trains else made.features)[needs.pictures],
        "checkpoint": made.checkpoint,
    }
    inputs["labels"] = data.benchmarks[needs.labels] if needs.labels else data.captions
    if needs.pictures is not None and needs.labels != needs.pictures:
        inputs["names"] = data.benchmarks[needs.pictures]
    if needs.probe and made.probe is not None:
        inputs["probe"] = made.probe
    return inputs


def features(recipe: Recipe, title: str, checkpoint: Artifact, data: DataSets) -> Stage[FeaturesConfig]:
    """One forward pass of the frozen backbone over the recipe's own pictures, or over some for looking at."""
    judged = any(SUITES[name].reads_all for name in suites(recipe))
    config = FeaturesConfig(sample=None if judged else SEEN, shard=recipe.evaluate.shard)
    inputs = {"checkpoint": checkpoint, "captions": data.captions, "images": data.images}
    return Stage(FEATURES, f"features {title}", config, inputs)


def benchmark_features(
    recipe: Recipe, title: str, checkpoint: Artifact, dataset: Dataset, data: DataSets
) -> Stage[BenchmarkFeaturesConfig]:
    """One forward pass of the frozen backbone over a data set's pictures."""
    framing = OFFICIAL.get(dataset, "standard") if recipe.evaluate.framing == "official" else "standard"
    root = roots(recipe).get(dataset)
    config = BenchmarkFeaturesConfig(dataset=dataset, framing=framing, root=root, shard=recipe.evaluate.shard)
    name = f"features of {dataset} {title}"
    return Stage(BENCHMARK_FEATURES, name, config, _pictures(recipe, checkpoint, dataset, data))


def probe(
    recipe: Recipe, title: str, checkpoint: Artifact, features: Artifact, data: DataSets
) -> Stage[ProbeStageConfig]:
    """Fit the linear head to the features of ImageNet's training pictures."""
    config = ProbeStageConfig(probe=recipe.evaluate.probe, seed=recipe.evaluate.seed)
    inputs = {"checkpoint": checkpoint, "features": features, "labels": data.benchmarks["imagenet"]}
    return Stage(PROBE, f"probe {title}", config, inputs)


def finetune(
    recipe: Recipe, title: str, checkpoint: Artifact, data: DataSets, dataset: Dataset | None = "imagenet"
) -> Stage[FinetuneStageConfig]:
    """Train a checkpoint's backbone and a classifier on a data set's pictures, or on the recipe's own."""
    chosen, views = recipe.evaluate.finetune, recipe.train.views
    train = recipe.train.model_copy(
        update=chosen.model_dump()
        | {
            "optimizer": "sgd",
            "lr_rule": "absolute",
            "fraction": 1.0,
            "shuffle_shards": None,
            "neighbourhoods": 0.0,
            "neighbourhood_size": TrainConfig.model_fields["neighbourhood_size"].default,
            "init": None,
            "views": "simclr" if views == "stickers" else views,
        }
    )
    config = FinetuneStageConfig(train=with_decoder(train), seed=recipe.evaluate.seed, own=dataset is None)
    if dataset is None:
        inputs = {"checkpoint": checkpoint, "captions": data.captions, "images": data.images}
        return Stage(FINETUNE, f"finetuning on own pictures {title}", config, inputs)
    config = config.model_copy(update={"root": roots(recipe).get(dataset)})
    return Stage(FINETUNE, f"finetuning {title}", config, _pictures(recipe, checkpoint, dataset, data))


def _pictures(recipe: Recipe, checkpoint: Artifact, dataset: Dataset, data: DataSets) -> dict[str, Artifact]:
    """The inputs of a stage that shows a network a data set's pictures."""
    inputs = {"checkpoint": checkpoint, "benchmark": data.benchmarks[dataset]}
    return inputs | ({"export": data.export} if data.export is not None and dataset not in roots(recipe) else {})


def suite(
    recipe: Recipe, name: SuiteName, title: str, inputs: Mapping[str, Artifact], store: Store
) -> Stage[SuiteConfig]:
    """One suite on one network's features; `inputs` as `read` gives them."""
    evaluate = recipe.evaluate
    config = SuiteConfig(suite=name, bootstrap=evaluate.bootstrap, seed=evaluate.seed, paired=name == "imagenet9")
    if SUITES[name].fits:
        config = config.model_copy(update={"probe": evaluate.probe, "crossed": True})
    if SUITES[name].towers:
        text = {**text_model(recipe.embed.model, store), "precision": recipe.embed.precision}
        own = (recipe.judged.caption_template,) if SUITES[name].own else ()
        config = config.model_copy(update={"prompts": evaluate.prompts or own} | text)
    return Stage(SUITE, f"{name} {title}", config, inputs)


def counting_once(suite: Stage[SuiteConfig]) -> Stage[SuiteConfig]:
    """The suite with each of a recipe's own pictures judged once, however many captions it has."""
    own = SUITES[suite.config.suite].own
    return replace(suite, config=suite.config.model_copy(update={"once": own}))


def comparison(recipe: Recipe, results: Sequence[Artifact]) -> Stage[ComparisonConfig]:
    """All scores of a run in one table."""
    inputs = {f"scores{index}": each for index, each in enumerate(results)}
    return Stage(COMPARISON, "comparison", ComparisonConfig(dataset=recipe.data.source), inputs)
