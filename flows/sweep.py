"""Sweeps: the shared stages once, then every cell's training, features and suites, in job arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from prefect import flow
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

import tasks
from flows.context import cancel_jobs, cluster_name, home_folder, open_run
from flows.failing import saying_why
from flows.notify import notify
from flows.publish import publish_links, publish_sweep
from flows.walk import with_source
from infra.cluster import load_cluster
from infra.halving import stopping_weak
from infra.home.sweeps import cell_lines
from infra.mode import Mode
from infra.plan import check_budget, plan_sweep
from infra.run import Run
from xclr.errors import JobError
from xclr.recipe import with_overrides
from xclr.store import Store
from xclr.sweep.layout import Cell, SweepPlan, layout
from xclr.sweep.spec import Sweep


@flow(
    name="xclr-sweep",
    description="A recipe at many values of its fields: what they share once, the rest as job arrays; then a table.",
    flow_run_name="{sweep.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=64),  # type: ignore[arg-type]
    on_cancellation=[cancel_jobs],
    on_completion=[notify],
    on_failure=[notify],
    on_crashed=[notify],
)
@saying_why
def sweep(
    sweep: Sweep,
    overrides: tuple[str, ...] = (),
    cluster: str | None = None,
    home: str | None = None,
    mode: Mode = "cached",
) -> str:
    """Run a sweep; returns the run's id. What other sweeps or runs made is found, not made again.

    Args:
        sweep: What varies, of which recipe, and what may be spent on it.
        overrides: Keys of the recipe to change at every point, as in `xclr sweep --set`: train.epochs=2
        cluster: Where the stages run: local, or the path of a cluster file. Default: XCLR_CLUSTER, else local.
        home: Where artifacts, ledger and logs live. Default: XCLR_HOME, else .xclr in the working directory.
        mode: cached (cells that failed stay failed), retry (they are tried again), force (make all again) or read-only.
    """
    recipe = with_source(with_overrides(sweep.recipe, overrides), cluster, home, sweep)
    swept = layout(sweep.model_copy(update={"recipe": recipe}), Store(home_folder(home)))
    where = load_cluster(cluster_name(cluster))
    check_budget(swept, plan_sweep(swept, Store(home_folder(home)), where))
    with open_run(recipe, swept.stages, cluster, home, mode, swept) as run:
        shared = submit_levels(run, swept, swept.shared, {})
        wait(list(shared.values()))
        check_sizes(run, swept)
        with stopping_weak(run, swept.stages) if swept.sweep.stop_weak else nullcontext():
            cells = submit_levels(run, swept, [each for each in swept.levels if each not in swept.shared], shared)
            wait(list(cells.values()))
        settle(run, swept, [*shared.values(), *cells.values()])
        return run.id


def submit_levels(run: Run, swept: SweepPlan, names: Sequence[str], before: Mapping[str, Any]) -> dict[str, Any]:
    """Submit levels, those of cells all at once: each takes up what it reads as that comes; their futures by name."""
    made: dict[str, Any] = dict(before)
    for name in names:
        level = swept.levels[name]
        after = [made[each] for each in swept.before(name) if each in swept.shared]
        made[name] = tasks.level.submit(run, name, len(level), level, swept.sweep.parallel, after)
    return {name: made[name] for name in names}


def check_sizes(run: Run, swept: SweepPlan) -> None:
    """Raise DataError when the data are too few for a point, before any training."""
    for plan in swept.plans:
        for stage in plan.until("graph"):
            if (artifact := run.store.find(stage.digest)) is not None:
                stage.check(plan.recipe, run.store.manifest(artifact))


def settle(run: Run, swept: SweepPlan, futures: Sequence[Any]) -> None:
    """Publish what came of the cells; raises JobError when some could not be made that were not stopped as weak."""
    publish_links(run, swept.stages)
    publish_sweep(run)
    failures: dict[str, str] = {}
    for future in futures:
        failures |= future.result()
    for line in cell_lines(run.store.home, run.record) if failures else ():
        if line.state == "stopped":  # as the sweep was asked to
            failures = {digest: why for digest, why in failures.items() if digest not in line.cell.digests}
    assert run.record.sweep is not None
    if failures:
        name, lost = run.record.sweep.name, [each for each in run.record.cells if _lost(each, failures)]
        first = next(iter(failures.values()))
        raise JobError(
            f"sweep {name}: {len(lost)} of {len(run.record.cells)} cells are not complete; the first reason:\n{first}",
            f"xclr status shows them; xclr retry {name} runs only these",
        )


def _lost(cell: Cell, failures: Mapping[str, str]) -> bool:
    return not cell.digests.isdisjoint(failures)
