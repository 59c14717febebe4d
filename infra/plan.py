"""What a run would do, without doing it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from infra.cluster import Cluster
from infra.executors.executor import executor_named
from infra.executors.observe import observe
from infra.ledger import Attach, Book, Ledger, reconcile
from infra.processes import now
from xclr.captions.source import most_rows
from xclr.disk import LESS, room_at, size
from xclr.errors import RecipeError
from xclr.pipeline import pipeline
from xclr.recipe import SOURCES, Recipe
from xclr.stage import Plan, Refusal, Stage, Step
from xclr.store import Store
from xclr.sweep.layout import SweepPlan


class PlannedStage(BaseModel):
    """One stage: whether its output is there, being made or to be made.

    `core_hours` of all cores and `memory_gb` (GiB) of a process are estimates for embeddings and the graph, where they
    are to be made without GPUs and the number of captions is known. `refusals` say why a run would end after it.
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
    refusals: tuple[str, ...] = Field((), exclude=True)  # for people: what programs read stays as it is


def plan(recipe: Recipe, store: Store, cluster: Cluster) -> tuple[PlannedStage, ...]:
    """Every stage of a recipe in order; touches nothing."""
    planned = []
    for stage in pipeline(recipe, store):
        found = _planned(stage, store, cluster)
        on_cores = found.state == "miss" and not cluster.resources_of(stage).gpus
        costs = stage.kind.estimate(stage, store, recipe) if on_cores else None
        refusals = tuple(str(each.error) for each in _refusals(stage, recipe, store))
        more = ({} if costs is None else costs._asdict()) | {"refusals": refusals}
        planned.append(found.model_copy(update=more))
    return tuple(planned)


def check_data(planned: Plan, steps: Container[Step]) -> None:
    """Raise DataError where a run that takes these steps would end for its captions or pictures; touches nothing."""
    for stage in planned.until("images"):
        for refusal in _refusals(stage, planned.recipe, planned.store):
            if refusal.step in steps:
                raise refusal.error


def lack_of_room(planned: Plan) -> str | None:
    """A line where the data stages that are to be made would write more, about, than HOME's disk has room for."""
    if SOURCES[planned.recipe.data.source].path is None:  # they come with xclr, and are few
        return None
    rows, store = cache(most_rows), planned.store
    made = (stage for stage in planned.until("graph") if store.find(stage.digest) is None)
    needed = sum(stage.kind.writes(stage, planned.recipe, rows) for stage in made)
    room = room_at(store.home)
    if needed <= room.free:
        return None
    return f"the data may need {size(needed)} below {store.home}, and {room.mount} has {room}\n  -> {LESS}"


def _refusals(stage: Stage, recipe: Recipe, store: Store) -> Iterable[Refusal]:
    """Why a run would end after a stage, as what it made tells, or, before, a look at what it would be made of."""
    found = store.find(stage.digest)
    return (
        stage.kind.foresee(stage, recipe) if found is None else stage.kind.refuse(stage, recipe, store.manifest(found))
    )


class PlannedLevel(BaseModel):
    """The stages of a sweep that do the same: how many are there, being made, to be made; what the latter may take.

    `gpu_hours` count each of `running` and `miss` once, at its time limit; `arrays` are submissions of jobs at most.
    """

    model_config = ConfigDict(frozen=True)
    level: str
    stages: int
    hit: int
    running: int
    miss: int
    arrays: int
    at_once: int
    gpu_hours: float


def plan_sweep(swept: SweepPlan, store: Store, cluster: Cluster) -> tuple[PlannedLevel, ...]:
    """Every level of a sweep in order; touches nothing."""
    levels: dict[str, PlannedLevel] = {}
    for name in swept.levels:
        cells = [levels[each] for each in swept.before(name) if each not in swept.shared]
        follows = any(each.miss or each.running for each in cells)
        levels[name] = _planned_level(swept, name, store, cluster, follows=follows)
    return tuple(levels.values())


def check_budget(swept: SweepPlan, levels: Sequence[PlannedLevel]) -> None:
    """Raise RecipeError when a sweep's plan may take more GPU-hours than it is allowed."""
    allowed, planned = swept.sweep.max_gpu_hours, sum(each.gpu_hours for each in levels)
    if allowed is None or planned <= allowed:
        return
    most = max(levels, key=lambda each: each.gpu_hours)
    raise RecipeError(
        f"sweep {swept.sweep.name} may take {planned:,.0f} GPU-hours, more than the {allowed:,.0f} allowed: "
        f"{most.miss + most.running} x {most.level} of at most {most.gpu_hours / (most.miss + most.running):,.0f} each",
        "sweep fewer values or seeds, lower timeout_min in the cluster file, or raise --max-gpu-hours",
    )


def _planned_level(swept: SweepPlan, name: str, store: Store, cluster: Cluster, *, follows: bool) -> PlannedLevel:
    """A level as it stands; one that follows cells that are still to come is submitted as they do."""
    level = swept.levels[name]
    planned = [_planned(stage, store, cluster) for stage in level]
    count = {state: sum(each.state == state for each in planned) for state in ("hit", "running", "miss")}
    resources = cluster.resources_of(level[0])
    executor = executor_named(resources.executor)
    at_once = swept.sweep.parallel or (len(level) if executor.is_here else resources.parallel)
    arrays = 0 if executor.is_here else count["miss"]
    if executor.has_arrays and level[0].network:
        arrays = -(-count["miss"] // min(executor.array_size, at_once if follows else len(level)))
    hours = sum(each.gpu_hours for each in planned)
    return PlannedLevel(level=name, stages=len(level), **count, arrays=arrays, at_once=at_once, gpu_hours=hours)


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
