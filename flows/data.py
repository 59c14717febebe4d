"""Captions, pictures, text embeddings and graphs: everything that a training reads."""

from __future__ import annotations

from prefect import flow

from flows.context import cancel_jobs, home_folder, open_run
from flows.failing import saying_why
from flows.notify import notify
from flows.walk import settle, submit, with_source
from infra.mode import Mode
from xclr.pipeline import pipeline
from xclr.recipe import Recipe, with_overrides
from xclr.store import Store


@flow(
    name="xclr-data",
    description="Captions, pictures, text embeddings and similarity graphs of a recipe, without training.",
    flow_run_name="{recipe.name} data",
    on_cancellation=[cancel_jobs],
    on_completion=[notify],
    on_failure=[notify],
    on_crashed=[notify],
)
@saying_why
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
    plan = pipeline(with_source(with_overrides(recipe, overrides), cluster, home), Store(home_folder(home)))
    with open_run(plan.recipe, plan, cluster, home, mode) as run:
        settle(run, plan, submit(run, plan.until("graph")))
        return run.id
