"""What a run would do, without doing it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from infra.cluster import Cluster
from infra.estimate import elements, estimate, expected_captions
from infra.ledger import Attach, Book, Ledger, now, reconcile
from infra.observe import observe
from xclr.recipe import Recipe
from xclr.stages import GraphKnnConfig, Stage, pipeline
from xclr.store import Store


class PlannedStage(BaseModel):
    """One stage: whether its output is there, being made or to be made.

    `core_hours` of all cores and `memory_gb` (GiB) of a process are estimates for embeddings and the graph, where they
    are to be made without GPUs and the number of captions is known.
    """

    model_config = ConfigDict(frozen=True)
    stage: str
    digest: str
    state: Literal["hit", "miss", "running"]
    rows: int | None
    bytes: int | None
    gpu_hours: float
    core_hours: float | None = None
    memory_gb: float | None = None


def plan(recipe: Recipe, store: Store, cluster: Cluster) -> tuple[PlannedStage, ...]:
    """Every stage of a recipe in order; touches nothing."""
    planned = []
    for stage in pipeline(recipe, store):
        found = _planned(stage, store, cluster)
        on_cores = found.state == "miss" and not cluster.resources_of(stage).gpus
        costs = estimate(stage, store, recipe) if on_cores else None
        planned.append(found if costs is None else found.model_copy(update=costs._asdict()))
    return tuple(planned)


def other_method(recipe: Recipe, store: Store) -> str | None:
    """A line that says what the graph costs exactly and approximately; None where it is made, or nobody knows."""
    stage = next(each for each in pipeline(recipe, store) if each.kind == "graph")
    known = expected_captions(stage, store, recipe.data)
    if known is None or store.find(stage.digest) is not None:
        return None
    parts = []
    for method in ("exact", "approximate"):
        chosen = recipe.model_copy(update={"graph": recipe.graph.model_copy(update={"method": method})})
        twin = next(each for each in pipeline(chosen, store) if each.kind == "graph")
        costs = estimate(twin, store, chosen)
        if costs is None or not isinstance(twin.config, GraphKnnConfig):
            return None
        pieces = elements(known, twin.config)
        array = f" in {pieces} elements" if pieces > 1 else ""
        parts.append(f"{method} {costs.core_hours:,.3g} core-hours{array}, {costs.memory_gb:,.1f} GiB each")
    return f"graph of {known:,} captions, estimated: " + "; ".join(parts)


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
