"""The task of a sweep: all stages of a level, whatever becomes of single ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from infra.batch import ensure_all, join_sweep
from infra.run import Run
from tasks.make import counted
from xclr.stage import Stage


@task(task_run_name="{what} ({number})", cache_policy=NO_CACHE)
def level(
    run: Run, what: str, number: int, stages: Sequence[Stage], parallel: int | None, after: Sequence[Mapping[str, str]]
) -> dict[str, str]:
    """Find or make every stage of a level; returns why some could not be made, by digest."""
    with counted(run, what, stages):
        failures = {digest: str(error) for digest, error in ensure_all(run, what, stages, parallel).items()}
    if stages[0].kind.network:
        join_sweep(run)
    for reason in failures.values():
        get_run_logger().error("%s", reason)
    return failures
