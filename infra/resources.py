"""What jobs are given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from xclr.recipe import Config


class Container(Config):
    """The image that a job runs in; it holds Python and the packages, the code comes from XCLR_HOME."""

    image: str = Field(pattern=r"^[^\s]+$", description="path of a .sif or .sqsh file, or what the runtime fetches")
    runtime: Literal["apptainer", "pyxis"]
    mounts: tuple[str, ...] = Field(
        (), description="folders that are seen in it as they are, beside XCLR_HOME; such as those of evaluate.roots"
    )


class Resources(Config):
    """What a job of one stage kind gets."""

    executor: str = Field(
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
    stuck_after_s: int | None = Field(
        1800, ge=1, description="without progress for so long a running stage is named; null: never"
    )
    partition: str | None = Field(None, description="default: the cluster's own (slurm)")
    account: str | None = Field(None, description="who pays (slurm)")
    qos: str | None = Field(None, description="quality of service (slurm)")
    nice: int | None = Field(None, ge=0, le=2147483645, description="how far its jobs stand back behind others (slurm)")
    constraint: str | None = Field(None, description="features that the nodes must have (slurm)")
    parallel: int = Field(64, ge=1, description="elements of a job array at once (slurm)")
    container: Container | None = Field(None, description="the image that its jobs run in (slurm)")
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
        return self


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
