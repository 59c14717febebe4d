"""Where stages run: cluster files say what each stage kind gets; nothing here enters a digest."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from xclr.errors import RecipeError
from xclr.pipeline import KINDS
from xclr.recipe import Config
from xclr.stage import Stage

CLUSTERS = Path(__file__).parent / "clusters"


class Resources(Config):
    """What a job of one stage kind gets."""

    executor: Literal["inline", "local", "slurm"] = Field(
        "inline",
        description="inline: in the orchestrator's process; local: a process of its own; slurm: a job of the cluster",
    )
    ranks: int = Field(1, ge=1, description="processes of one job over all its nodes, one a GPU where there are any")
    nodes: int = Field(1, ge=1, description="of each job, which share its ranks and GPUs evenly")
    threads: int | None = Field(
        None,
        ge=1,
        description="of each rank; default: cpus, else 1 on Slurm, and here the cores shared by the ranks",
    )
    cpus: int | None = Field(None, ge=1, description="cores of each rank, for its threads and loaders (slurm)")
    gpus: int = Field(0, ge=0, description="of each job: none, or one a rank")
    memory_gb: float | None = Field(None, gt=0, description="on each node (slurm); default: the cluster's own")
    timeout_min: int = Field(7 * 24 * 60, ge=1, description="after which a job is ended")
    warn_s: int = Field(
        300,
        ge=1,
        description="how long before that a job is told, so that it saves (slurm); two steps and more",
    )
    partition: str | None = Field(None, description="default: the cluster's own (slurm)")
    account: str | None = Field(None, description="who pays (slurm)")
    qos: str | None = Field(None, description="quality of service (slurm)")
    nice: int | None = Field(None, ge=0, le=2147483645, description="how far its jobs stand back behind others (slurm)")
    constraint: str | None = Field(None, description="features that the nodes must have (slurm)")
    parallel: int = Field(64, ge=1, description="elements of a job array at once (slurm)")
    setup: tuple[str, ...] = Field((), description="shell lines before the job, such as module load (slurm)")
    sbatch: Mapping[str, str | int | bool] = Field(
        {}, description="more options of sbatch by their long names, such as {reservation: spring} (slurm)"
    )

    @model_validator(mode="after")
    def _shares_are_even(self) -> Resources:
        if self.gpus not in {0, self.ranks}:
            raise ValueError(f"{self.gpus} GPUs for {self.ranks} ranks: give each rank one, ranks = gpus")
        if self.ranks % self.nodes:
            raise ValueError(f"{self.ranks} ranks cannot be shared evenly by {self.nodes} nodes")
        if self.nodes > 1 and self.executor != "slurm":
            raise ValueError("more than one node needs executor: slurm")
        return self

    @property
    def threads_per_rank(self) -> int:
        """Threads each rank computes with."""
        here = 1 if self.executor == "slurm" else max(1, cores() // self.ranks)  # Slurm gives a rank one core
        return self.threads or self.cpus or here


class Cluster(Config):
    """A place to run."""

    name: str
    default: Resources = Resources()
    stages: Mapping[str, Resources] = {}

    @field_validator("stages")
    @classmethod
    def _kinds_exist(cls, stages: Mapping[str, Resources]) -> Mapping[str, Resources]:
        for kind in stages:
            if kind not in KINDS:
                raise ValueError(f"no stage kind {kind!r}; there are {', '.join(KINDS)}")
        return stages

    def resources(self, kind: str) -> Resources:
        """What a stage kind gets."""
        return self.stages.get(kind, self.default)

    def resources_of(self, stage: Stage) -> Resources:
        """What a stage gets: its kind's, but initial weights without a training need no GPUs."""
        return self.default if stage.kind.here(stage.config) else self.resources(stage.kind.name)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_cluster(source: str) -> Cluster:
    """Read a cluster file by name or path; raises RecipeError saying what is wrong with it."""
    named = CLUSTERS / f"{source}.yaml"
    path = named if named.is_file() else Path(source)
    if not path.is_file():
        names = sorted(each.stem for each in CLUSTERS.glob("*.yaml"))
        near = difflib.get_close_matches(source, names, n=1) or names
        raise RecipeError(f"no cluster {source!r}", f"give a YAML file, or one of: {', '.join(near)}")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Cluster.model_validate({"name": path.stem, **(raw or {})})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise RecipeError(f"{path}: {faults}", "see infra/clusters/local.yaml for one that works") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise RecipeError(f"{path} is not YAML: {error}", "see infra/clusters/local.yaml for one that works") from error
