"""The stage kind `pretrain`."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from xclr.artifact import Artifact
from xclr.errors import RecipeError
from xclr.graph.stages import MADE
from xclr.images.stages import tell_unreadable
from xclr.recipe import (
    FROM_RUN,
    LATER,
    NEEDS_CLASSES,
    NETWORK,
    PUBLISHED,
    RUNTIME,
    SOURCES,
    TIMM,
    Changes,
    Config,
    GraphedConfig,
    MoCoConfig,
    ObjectiveConfig,
    PairsConfig,
    RandomConfig,
    Recipe,
    SupConConfig,
    TargetGraph,
    TrainConfig,
    TrainedConfig,
    details,
    graph_name,
    method_name,
    with_graph,
)
from xclr.stage import Given, Kind, Origin, Stage
from xclr.store import Store

CHECKPOINT = "checkpoint.pt"  # what a finished training leaves


class PretrainConfig(Config):
    """One pretraining: objective, schedule, seed."""

    objective: ObjectiveConfig
    train: TrainConfig
    seed: int
    dataset: str
    exact_crops: bool = Field(False, json_schema_extra=LATER)  # of photographs that are decoded at a smaller scale
    rounded_crops: bool = Field(False, json_schema_extra=LATER)  # of photographs, as torch rounds them; before, Pillow
    judged: bool = Field(
        False, json_schema_extra=LATER
    )  # SupCon's classes are those of suites, and others than concepts
    given: bool = Field(False, json_schema_extra=LATER)  # it starts from the weights of the input `initial`


class InitialConfig(Config):
    """Weights that a backbone starts from: published ones by their full name, those of a file by its content."""

    weights: str | None = None
    sha256: str | None = None
    train: TrainConfig  # the network alone
    path: Path | None = Field(None, json_schema_extra=RUNTIME)


class Data(NamedTuple):
    """What trainings read."""

    captions: Artifact
    images: Artifact
    embeddings: Artifact
    graph: Artifact
    made: Mapping[TargetGraph, Artifact]  # graphs that objectives need beside the captions' own


class JudgedNetwork(NamedTuple):
    """A network that is judged, and the stage that makes it; the objective is None for one from elsewhere."""

    title: str
    objective: ObjectiveConfig | None
    stage: Stage


def origin(config: PretrainConfig) -> Origin:
    """Whose network it is; SupCon on the emoji that does not say so is of before, when it was trained on concepts."""
    objective = config.objective
    if isinstance(objective, SupConConfig) and SOURCES[config.dataset].annotated and not config.judged:
        objective = objective.model_copy(update={"classes": "concepts"})
    untrained = isinstance(objective, RandomConfig)
    return Origin(
        method="initial" if untrained and config.given else method_name(objective),
        dataset=config.dataset,
        graph=graph_name(objective, config.dataset),
        seed=config.seed,
        rate="" if untrained else config.train.rate,
        uses=", ".join(dict.fromkeys((*objective.uses, *config.train.uses))),
        trained=", ".join(f"{key}={value}" for key, value in details(objective).items()),
    )


def given_file(what: str, path: Path | None, sha256: str | None, store: Store) -> Iterator[Given]:
    """A file that is named by its content, where one is."""
    if path is not None and sha256 is not None:
        yield Given(what, (path,), (sha256,), lambda: (store.content_hash(path),))


def _idle(config: PretrainConfig) -> Container[str]:
    """The keys of a network that is not trained which are of its training."""
    if not isinstance(config.objective, RandomConfig):
        return ()
    return {f"train.{name}" for name in TrainConfig.model_fields if name not in NETWORK}


PRETRAIN = Kind(
    "pretrain",
    PretrainConfig,
    code=2,
    run="xclr.training.pretrain",
    step="pretrain",
    ranks=lambda config: config.train.stuck_after_s,
    here=lambda config: isinstance(config.objective, RandomConfig),
    network=origin,
    idle=_idle,
    tell=lambda made: (*tell_unreadable(made), *str(made.stats.get("notices", "")).splitlines()),
    watched=True,
)
INITIAL = Kind(
    "initial",
    InitialConfig,
    code=1,
    run="xclr.training.initial",
    step="pretrain",
    here=lambda config: True,
    given=lambda config, store: given_file("weights", config.path, config.sha256, store),
)
KINDS = (INITIAL, PRETRAIN)


def objectives(recipe: Recipe) -> list[ObjectiveConfig]:
    """The recipe's objectives that its data can serve, their graphs filled in, after the untrained row."""
    filled = with_graph(recipe.objectives, recipe.graph)
    left_out = {"none"} if recipe.data.has_labels else {"none", "class", "concept"}
    by_concept = any(isinstance(each, SupConConfig) and each.classes == "concepts" for each in filled)
    if by_concept and not SOURCES[recipe.data.source].annotated:
        raise RecipeError(
            f"supcon on concepts is for the emoji; a picture of {recipe.data.source} has one class",
            "leave `classes: concepts` out",
        )
    chosen: list[ObjectiveConfig] = [RandomConfig(), *(each for each in filled if each.targets not in left_out)]
    needy = [each.source for each in _graphs(chosen) if each.source in NEEDS_CLASSES]
    if needy and not recipe.data.has_labels:
        raise RecipeError(f"graph {needy[0]} needs classes", "set data.label_column, or graph.source: captions")
    if any(each.source == "truth" for each in _graphs(chosen)) and not SOURCES[recipe.data.source].drawn:
        raise RecipeError(
            f"graph truth is known of drawn scenes, not of {recipe.data.source}",
            "set data.source: scenes, or another graph",
        )
    return chosen


def made_graphs(recipe: Recipe) -> list[TargetGraph]:
    """The graphs that are made for the recipe's objectives beside that of its captions, each once."""
    return list(dict.fromkeys(each for each in _graphs(objectives(recipe)) if each.source in MADE))


def _graphs(chosen: list[ObjectiveConfig]) -> list[TargetGraph]:
    return [each.graph for each in chosen if isinstance(each, GraphedConfig) and each.graph]


def initials(recipe: Recipe, store: Store) -> list[Stage[InitialConfig]]:
    """What makes the weights that trainings of a recipe start from, where they are not fresh."""
    chosen = (_trained(each, recipe.train) for each in objectives(recipe))
    return [stage for train in dict.fromkeys(chosen) if (stage := initial(train, store)) is not None]


def initial(train: TrainConfig, store: Store) -> Stage[InitialConfig] | None:
    """Fetch or read the weights that a backbone starts from, once; None for fresh ones.

    Raises RecipeError for names that there are not, and files that are not there or do not fit the backbone.
    """
    if train.init is None:
        return None
    if train.init.startswith(FROM_RUN):
        raise RecipeError(
            f"train.init {train.init}: a run's network is named by its folder here", "give HOME/artifacts/pretrain/..."
        )
    if train.init.startswith(PUBLISHED):
        config = InitialConfig(weights=_full_name(train.init), train=train.network)
        return Stage(INITIAL, f"weights {config.weights}", config)
    given = Path(train.init)
    path, called = (given / CHECKPOINT, given.name[:8]) if given.is_dir() else (given, given.name)
    if not path.is_file():
        raise RecipeError(f"train.init: there is no file {path}", "give a path, or timm:NAME or torchvision:NAME")
    config = InitialConfig(sha256=store.content_hash(path), train=train.network, path=path)
    _check_initial(config)
    return Stage(INITIAL, f"weights {called}", config)


@cache
def _full_name(weights: str) -> str:
    from xclr.training.published import full_name  # here, as below, because a plan without weights needs no torch

    return full_name(weights)


@cache
def _check_initial(config: InitialConfig) -> None:
    from xclr.training.weights import read_state, weights_for

    assert config.path is not None
    weights_for(config.train, read_state(config.path), str(config.path))


def training(recipe: Recipe, objective: ObjectiveConfig, seed: int, data: Data) -> JudgedNetwork:
    """A pretraining of a recipe."""
    return JudgedNetwork(
        title_of(objective, seed, recipe.data.source), objective, pretrain(recipe, objective, seed, data)
    )


def pretrain(recipe: Recipe, objective: ObjectiveConfig, seed: int, data: Data) -> Stage[PretrainConfig]:
    """Pretrain one backbone, on what its objective needs of the data."""
    begun = initial(_trained(objective, recipe.train), Store.of(data.captions.path))
    train = recipe.train.network  # no schedule enters the name of an untrained backbone
    if isinstance(objective, TrainedConfig):
        train = with_decoder(objective.trained(recipe.train)).model_copy(update={"init": None})
        objective = objective.model_copy(update={"train": _changed(objective, recipe.train, begun)})
    again = {"activation_checkpointing": train.activation_checkpointing}
    if train.backbone.startswith(TIMM):
        _check_backbone(train.network.model_copy(update=again))
    if isinstance(objective, MoCoConfig) and objective.stages:
        _check_stages(train.network.model_copy(update=again))
    source = recipe.data.source
    judged = isinstance(objective, SupConConfig) and objective.classes == "judged" and SOURCES[source].annotated
    crops = dict.fromkeys(("exact_crops", "rounded_crops"), train.cuts_photographs)
    marks = {**crops, "judged": judged, "given": begun is not None}
    inputs = _read(objective, train, data, begun)
    if isinstance(objective, GraphedConfig) and objective.graph is not None:  # what its file holds is an input
        objective = objective.model_copy(update={"graph": objective.graph.named})
    config = PretrainConfig(objective=objective, train=train, seed=seed, dataset=source, **marks)
    return Stage(PRETRAIN, f"pretrain {title_of(objective, seed, source)}", config, inputs)


def _trained(objective: ObjectiveConfig, train: TrainConfig) -> TrainConfig:
    """How an objective is trained; the untrained network is the one that the recipe's trainings start from."""
    return objective.trained(train) if isinstance(objective, TrainedConfig) else train


def _changed(objective: TrainedConfig, train: TrainConfig, begun: Stage[InitialConfig] | None) -> Changes:
    """What of a training is otherwise for its objective; weights to start from are named by what they are."""
    changed = {key: value for key, value in objective.train.items() if value != getattr(train, key)}
    if changed.get("init") and begun is not None:
        changed["init"] = begun.config.weights or f"sha256:{begun.config.sha256}"
    return Changes(changed)


def _read(
    objective: ObjectiveConfig, train: TrainConfig, data: Data, begun: Stage[InitialConfig] | None
) -> dict[str, Artifact]:
    """What a pretraining reads, by role."""
    inputs = {"captions": data.captions, "images": data.images}
    if isinstance(objective, PairsConfig) and objective.text == "frozen":
        inputs["embeddings"] = data.embeddings
    if isinstance(objective, GraphedConfig) and objective.graph is not None:
        inputs |= _similarities(objective.graph, data)
    if train.neighbourhoods:
        inputs["graph"] = data.graph
    if begun is not None:
        inputs["initial"] = Store.of(data.captions.path).reference(begun.digest)
    return inputs


@cache
def _check_backbone(train: TrainConfig) -> None:
    """Raise RecipeError for a backbone of timm that cannot be had, before anything is made for it."""
    from xclr.training.model import check_backbone  # here, because a plan without one needs no torch

    check_backbone(train)


@cache
def _check_stages(train: TrainConfig) -> None:
    """Raise RecipeError for a backbone without stages, before anything is made for it."""
    from xclr.training.model import check_stages  # as above

    check_stages(train)


def with_decoder(train: TrainConfig) -> TrainConfig:
    """With the decoder named where it is to be chosen: nvJPEG where this machine has it, and views are SimCLR's."""
    if train.decode != "auto":
        return train
    return train.model_copy(update={"decode": "gpu" if train.views == "simclr" and _has_nvjpeg() else "cpu"})


def _has_nvjpeg() -> bool:
    """Without starting CUDA, which the stages' processes would inherit; a torchvision made for CUDA has it."""
    import torch
    import torchvision

    return torch.cuda.is_available() and torchvision.version.cuda is not None


def _similarities(graph: TargetGraph, data: Data) -> dict[str, Artifact]:
    """Where a graph's similarities come from, by role; nothing for those that the captions' table tells."""
    if graph.source in MADE:
        return {data.made[graph].kind: data.made[graph]}
    if graph.source in {"captions", "random_pair", "permuted", "shuffled"}:
        return {"embeddings": data.embeddings}
    return {"graph": data.graph} if graph.source == "knn" else {}


def title_of(objective: ObjectiveConfig, seed: int, source: str) -> str:
    """What people call a pretraining."""
    return f"{method_name(objective)}{graph_suffix(objective, source)} seed {seed}"


def graph_suffix(objective: ObjectiveConfig, source: str) -> str:
    """Where targets come from, where it is not the method's own, as it stands behind the method; else nothing."""
    graph = graph_name(objective, source)
    usual = "captions" if isinstance(objective, GraphedConfig) else type(objective)().targets
    return f" ({graph})" if graph != usual else ""
