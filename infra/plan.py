"""What a run would do, without doing it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from infra.cluster import Cluster
from infra.ledger import Attach, Book, Ledger, now, reconcile
from infra.observe import observe
from xclr.recipe import Recipe
from xclr.stages import Stage, pipeline
from xclr.store import Store


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
    resources = cluster.resources_of(stage)
    hours = resources.gpus * resources.timeout_min / 60  # at most: the limit the job is submitted with
    return PlannedStage(stage=stage.name, digest=stage.digest, state=state, rows=None, bytes=None, gpu_hours=hours)
