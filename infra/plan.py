"""What a run would do, without doing it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from infra.cluster import Cluster
from infra.ledger import (
    UNSEEN_GRACE,
    Attach,
    Book,
    Entry,
    JobId,
    JobState,
    Ledger,
    find_process,
    is_of_this_machine,
    now,
    reconcile,
)
from xclr.job import FAILURE, RESULT
from xclr.recipe import Recipe
from xclr.stages import Stage, pipeline
from xclr.store import Store, is_locked


class PlannedStage(BaseModel):
    """One stage: whether its output is there, being made or to be made."""

    model_config = ConfigDict(frozen=True)
    stage: str
    digest: str
    state: Literal["hit", "miss", "running"]
    rows: int | None
    bytes: int | None
    gpu_hours: float


def plan(recipe: Recipe, store: Store, cluster: Cluster) -> tuple[PlannedStage, ...]:
    """Every stage of a recipe in order; touches nothing."""
    return tuple(_planned(stage, store, cluster) for stage in pipeline(recipe, store))


def observe(entry: Entry, out: Path) -> dict[JobId, JobState]:
    """What can be seen of an attempt's processes and outcome from this machine."""
    observed = {}
    if is_of_this_machine(entry.owner):
        observed[entry.owner] = JobState.RUNNING if find_process(entry.owner) else JobState.GONE
    if entry.job is not None:
        observed[entry.job] = _job_state(entry, entry.job, out)
    return observed


def _job_state(entry: Entry, job: JobId, out: Path) -> JobState:
    if find_process(job):
        return JobState.RUNNING
    for outcome, state in ((RESULT, JobState.COMPLETED), (FAILURE, JobState.FAILED)):
        if (out / outcome).exists():
            return state
    if is_of_this_machine(job):
        return JobState.GONE
    # the processes of another machine cannot be seen, its lock can, once it has started
    seen = is_locked(out) or now() - entry.claimed < UNSEEN_GRACE
    return JobState.RUNNING if seen else JobState.GONE


def _planned(stage: Stage, store: Store, cluster: Cluster) -> PlannedStage:
    artifact = store.find(stage.digest)
    if artifact is not None:
        manifest = store.manifest(artifact)
        rows = manifest.stats.get("rows") or max((each.rows or 0 for each in manifest.files), default=0)
        size = sum(each.bytes for each in manifest.files)
        return PlannedStage(stage=stage.name, digest=stage.digest, state="hit", rows=rows, bytes=size, gpu_hours=0.0)
    entry = Book(store.home).latest(stage.digest)
    state: Literal["miss", "running"] = "miss"
    if entry is not None:
        (action,) = reconcile(Ledger((entry,)), observe(entry, store.reference(stage.digest).path), now())
        state = "running" if isinstance(action, Attach) else "miss"
    resources = cluster.resources(stage.kind)
    hours = resources.gpus * resources.timeout_min / 60  # at most: the limit the job is submitted with
    return PlannedStage(stage=stage.name, digest=stage.digest, state=state, rows=None, bytes=None, gpu_hours=hours)
