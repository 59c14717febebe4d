"""What a run of MLflow is called and says of itself: its name, tags, parameters and description."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from infra.tracking.metrics import flat_items
from infra.tracking.versions import code_tags
from xclr.artifact import digest
from xclr.recipe import TEXT_MODEL, Recipe
from xclr.stage import Origin, Stage, network_name

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.entities import Run as MlflowRun

OURS = "xclr.run"  # tag of the run of ours that made what a run of MLflow shows
SEEDS = "seeds"  # tag that the runs of one method have in common, whatever their seeds
NOTE = "mlflow.note.content"
LONGEST = 250  # characters of a name
TELLING = ("data.path", "text_model")  # tags that tell runs of equal parameters apart


class NewRun(NamedTuple):
    """An MLflow run to create."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str] = {}
    inputs: Sequence[DatasetInput] = ()
    began_ms: int | None = None


def source_tags(run: str, command: str) -> dict[str, str]:
    """What made a run: our run's id, the command, who typed it, and of which state of the code."""
    tags = {
        OURS: run,
        "mlflow.source.name": command,
        "mlflow.source.type": "LOCAL",
        "mlflow.user": getpass.getuser(),
    }
    return {**tags, **code_tags()}


def data_tags(recipe: Recipe) -> dict[str, str]:
    """Which data a recipe is about."""
    where = recipe.data.path or recipe.data.url
    return {"dataset": recipe.data.source} | ({"data.path": str(where)} if where else {})


def network_tags(stage: Stage, recipe: Recipe) -> dict[str, str]:
    """Whose network a stage makes, of which data and text model, and what other seeds of it have in common."""
    origin = origin_of(stage)
    tags = {key: str(value) for key, value in origin._asdict().items() if value != ""}
    tags |= {"digest": str(stage.digest), **data_tags(recipe), "dataset": origin.dataset}
    if TEXT_MODEL in origin.uses:
        tags["text_model"] = recipe.embed.model
    if "seed" in stage.identity:
        tags[SEEDS] = str(digest("seeds", stage.config.model_copy(update={"seed": 0}), tuple(stage.inputs.values()), 1))
    return tags


def origin_of(stage: Stage) -> Origin:
    """Whose network a stage makes."""
    assert stage.kind.network is not None
    return stage.kind.network(stage.config)


def network_params(stage: Stage) -> dict[str, str]:
    """The keys of a stage's config that hold for what it makes, with dotted names."""
    idle = stage.kind.idle(stage.config)
    return {key: value for key, value in flat_items(stage.identity) if key not in idle}


def network_note(stage: Stage, out: Path, recipe: Recipe) -> str:
    """What a network is and where its files are, in Markdown."""
    origin = origin_of(stage)
    uses = f" It learns from {origin.uses}." if origin.uses else ""
    name = network_name(origin.method, origin.graph, origin.seed)
    return f"The network **{name}** of the recipe `{recipe.name}` on `{origin.dataset}`.{uses}\n\nFiles: `{out}`"


def data_note(recipe: Recipe) -> str:
    """What the run of a recipe's data is, in Markdown."""
    return f"What becomes of the data of the recipe `{recipe.name}`: captions, pictures, graph, up to its score table."


def distinct(new: NewRun, others: Sequence[MlflowRun]) -> NewRun:
    """With a name that no other has: where one has it, followed by the parameters, else the data, that differ."""
    same = [each for each in others if f"{each.info.run_name}, ".startswith(f"{new.name}, ")]
    if not same:
        return new
    known = {**new.tags, **new.params}
    words = [f"{key}={known[key]}" for key in dict.fromkeys(key for each in same for key in _differing(new, each))]
    mark = (new.tags.get("digest") or new.tags[SEEDS])[:8]
    name = ", ".join([new.name, *(words or [mark])])
    if len(name) > LONGEST or name in {each.info.run_name for each in same}:
        name = f"{new.name}, {mark}"
    return new._replace(name=name)


def _differing(new: NewRun, other: MlflowRun) -> list[str]:
    """The parameters, or where these are the same the tags of the data, by which a run is told from another."""
    found = [key for key, value in new.params.items() if other.data.params.get(key) != value]
    return found or [key for key in TELLING if key in new.tags and other.data.tags.get(key) != new.tags[key]]
