"""The comparison task."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.stage import Run
from tasks.stage import make
from xclr import stages
from xclr.artifact import Artifact


@task(task_run_name="comparison", cache_policy=NO_CACHE)
def comparison(run: Run, results: Sequence[Artifact]) -> Artifact:
    """Gather the scores of all methods and suites in one table."""
    made = make(run, stages.comparison(run.recipe, results))
    run.save(scores=str(made.digest))
    return made
