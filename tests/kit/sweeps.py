"""A sweep's levels without Prefect."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.batch import Failures, ensure_all
from infra.cluster import Cluster
from infra.run import Run
from tests.kit.recipes import CLUSTER, TINY
from tests.kit.runs import open_run
from xclr.recipe import Recipe
from xclr.store import Store
from xclr.sweep.layout import SweepPlan, layout, values_of
from xclr.sweep.spec import Sweep

TAU = "objective.target_temperature"


def small(training: dict[str, object] | None = None, **keys: object) -> Sweep:
    """Two temperatures of X-CLR on a few emoji; `training` and `keys` change the recipe and the sweep."""
    recipe = TINY | {"name": "small", "objectives": ["xclr"], "train": TINY["train"] | (training or {})}
    recipe |= {"retries": {"lost_after_s": 5}}
    return Sweep.model_validate(
        {"name": "s", "recipe": Recipe.model_validate(recipe), "grid": {TAU: [0.1, 0.2]}} | keys
    )


def open_sweep(home: Path, sweep: Sweep, cluster: Cluster = CLUSTER, mode: str = "cached") -> tuple[Run, SweepPlan]:
    """A run of a sweep, and what it is to make."""
    swept = layout(sweep, Store(home))
    run = open_run(home, mode, sweep.recipe, cluster)
    run.save(sweep=sweep, cells=swept.cells, digests=tuple(stage.digest for stage in swept.stages))
    run.tracker.tracker.points = values_of(swept.cells)
    return run, swept


def make_levels(run: Run, swept: SweepPlan, last: str | None = None) -> Failures:
    """Make the levels up to `last`, by default all, beside each other; why some stages could not be made."""
    names = list(swept.levels)
    names = names[: names.index(last) + 1] if last else names
    with ThreadPoolExecutor(len(names)) as pool:
        made = pool.map(lambda name: ensure_all(run, name, swept.levels[name], swept.sweep.parallel), names)
    return {digest: error for failures in made for digest, error in failures.items()}
