"""Captions, pictures, text embeddings and graphs: everything that a training reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import flow
from prefect.futures import wait

import tasks
from flows.context import cancel_jobs, home_folder, open_run
from flows.publish import publish_links
from infra.stage import Mode, Run
from xclr import stages
from xclr.datafiles import is_fetched
from xclr.recipe import Recipe, with_overrides
from xclr.stages import Until, reaches

Future = Any  # PrefectFuture[Artifact]; the types of `submit` do not let a future stand for its result
Futures = dict[str, Future]


@flow(
    name="xclr-data",
    description="Captions, pictures, text embeddings and similarity graphs of a recipe, without training.",
    flow_run_name="{recipe.name} data",
    on_cancellation=[cancel_jobs],
)
def data(
    recipe: Recipe,
    overrides: tuple[str, ...] = (),
    cluster: str | None = None,
    home: str | None = None,
    mode: Mode = "retry",
) -> str:
    """Make the data stages of a recipe; returns the run's id.

    Args:
        recipe: The recipe: what is read, how it is embedded, which graphs are written.
        overrides: Keys of the recipe to change, as in `xclr run --set`: graph.k=16
        cluster: Where the stages run: local, or the path of a cluster file. Default: XCLR_CLUSTER, else local.
        home: Where artifacts, ledger and logs live. Default: XCLR_HOME, else .xclr in the working directory.
        mode: retry, cached (earlier failures stand), force (make again) or read-only.
    """
    with open_run(with_source(with_overrides(recipe, overrides), home), cluster, home, mode) as run:
        settle(run, list(submit_data(run, "graph").values()))
        return run.id


def with_source(recipe: Recipe, home: str | None) -> Recipe:
    """The recipe with its table fetched, where only data.url names one."""
    return recipe if not is_fetched(recipe.data) else tasks.source.submit(recipe, home_folder(home)).result()


def submit_data(run: Run, until: Until) -> Futures:
    """Submit the data stages up to `until`; their futures by role."""
    captions: Future = tasks.captions.submit(run)
    made: Futures = {"captions": captions}
    if reaches(until, "images"):
        made["images"] = tasks.images.submit(run, captions)
    if reaches(until, "embeddings"):
        made["embeddings"] = tasks.embeddings.submit(run, captions)
    if reaches(until, "graph"):
        made["graph"] = tasks.graph.submit(run, captions, made["embeddings"])
        made["graph_report"] = tasks.graph_report.submit(run, **made)
        for target in stages.class_graphs(run.recipe):
            role = stages.class_graph_role(target)
            made[role] = tasks.class_graph.submit(run, target, captions, made["embeddings"])
    return made


def settle(run: Run, futures: Sequence[Future]) -> None:
    """Wait for every future, then raise what made one fail."""
    wait(list(futures))
    publish_links(run)
    for future in futures:
        future.result()
