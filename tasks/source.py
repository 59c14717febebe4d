"""The task of a source whose table is fetched."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from xclr.captions.download import fetch
from xclr.captions.source import placed
from xclr.recipe import Recipe, host_of


@task(task_run_name="download", cache_policy=NO_CACHE)
def source(recipe: Recipe, home: Path) -> Recipe:
    """Fetch the table that data.url names, once, and name it in the recipe."""
    log, tenths = get_run_logger().info, [0]

    def progress(done: int, total: int) -> None:
        if 10 * done // max(1, total) > tenths[0]:
            tenths[0] = 10 * done // max(1, total)
            log("captions from %s: %.1f of %.1f MB", host_of(str(recipe.data.url)), done / 1e6, total / 1e6)

    fetch(recipe.data, home, progress)
    return placed(recipe, home)
