"""Where stages run: cluster files say what each stage kind gets; nothing here enters a digest."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from infra.executors.executor import executor_named, executor_names
from infra.resources import Resources
from xclr.errors import RecipeError
from xclr.pipeline import KINDS
from xclr.recipe import Config, list_faults, read_yaml
from xclr.stage import Stage

CLUSTERS = Path(__file__).parent / "clusters"


def _fitting(resources: Resources) -> Resources:
    """Of an executor that there is, and that has nodes enough."""
    try:
        executor = executor_named(resources.executor)
    except RecipeError as error:
        fault = PydanticCustomError("executor", error.message)
        line = InitErrorDetails(type=fault, loc=("executor",), input=resources.executor)
        raise ValidationError.from_exception_data("Resources", [line]) from error
    if resources.nodes > 1 and executor.is_here:
        away = [name for name in executor_names() if not executor_named(name).is_here]
        raise ValueError(f"more than one node needs executor: {' or '.join(away)}")
    if resources.container is not None and executor.is_here:
        raise ValueError("a container needs executor: slurm")
    return resources


Fitting = Annotated[Resources, AfterValidator(_fitting)]


class Tracking(Config):
    """What MLflow is given of what stages make, beside metrics."""

    copy_up_to_mb: float = Field(4, ge=0)  # larger files are named by path, size and hash
    models: bool = True  # networks as models that it can open and register, whatever their size


class Cluster(Config):
    """A place to run."""

    name: str
    avoid_failed_nodes: bool = True  # by the next tries of a run: those that were lost, or whose GPU has a fault
    default: Fitting = Resources()
    tracking: Tracking = Tracking()
    stages: Mapping[str, Fitting] = {}

    @field_validator("stages")
    @classmethod
    def _kinds_exist(cls, stages: Mapping[str, Resources]) -> Mapping[str, Resources]:
        for kind in stages:
            if kind not in KINDS:
                raise ValueError(f"no stage kind {kind!r}; there are {', '.join(KINDS)}")
        return stages

    def check_here(self) -> None:
        """Raise JobError where jobs cannot be submitted from this machine."""
        for name in {each.executor for each in (self.default, *self.stages.values())}:
            executor_named(name).check_here()

    def resources(self, kind: str) -> Resources:
        """What a stage kind gets."""
        return self.stages.get(kind, self.default)

    def resources_of(self, stage: Stage) -> Resources:
        """What a stage gets: its kind's, but initial weights without a training need no GPUs."""
        return self.default if stage.kind.here(stage.config) else self.resources(stage.kind.name)


def load_cluster(source: str) -> Cluster:
    """Read a cluster file by name or path; raises RecipeError saying what is wrong with it."""
    named = CLUSTERS / f"{source}.yaml"
    path = named if named.is_file() else Path(source)
    if not path.is_file():
        names = sorted(each.stem for each in CLUSTERS.glob("*.yaml"))
        near = difflib.get_close_matches(source, names, n=1) or names
        raise RecipeError(f"no cluster {source!r}", f"give a YAML file, or one of: {', '.join(near)}")
    document, remedy = read_yaml(path), "see infra/clusters/local.yaml for one that works"
    raw = {} if document.content is None else document.content
    if not isinstance(raw, dict):
        raise RecipeError(f"{path} does not hold keys and values", remedy)
    try:
        return Cluster.model_validate({"name": path.stem} | raw)
    except ValidationError as error:
        told = [(each["loc"], f"{'.'.join(map(str, each['loc']))}: {each['msg']}") for each in error.errors()]
        raise RecipeError(list_faults(str(path), told, document.line), remedy) from error
