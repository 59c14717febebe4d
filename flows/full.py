"""The whole pipeline: captions -> images -> embeddings -> graph -> pretraining -> evaluation -> comparison."""

from __future__ import annotations

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.context import cancel_jobs, home_folder, open_run
from flows.failing import saying_why
from flows.notify import notify
from flows.walk import compare, settle, submit, with_source
from infra.mode import Mode
from xclr.pipeline import pipeline
from xclr.recipe import Recipe, with_overrides
from xclr.stage import Step
from xclr.store import Store


@flow(
    name="xclr-full",
    description="Captions, pictures, embeddings, graph, pretraining, evaluation and comparison of a recipe.",
    flow_run_name="{recipe.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=16),  # type: ignore[arg-type]
    on_cancellation=[cancel_jobs],
    on_completion=[notify],
    on_failure=[notify],
    on_crashed=[notify],
)
@saying_why
def full(
    recipe: Recipe,
    overrides: tuple[str, ...] = (),
    cluster: str | None = None,
    home: str | None = None,
    mode: Mode = "retry",
    until: Step = "compare",
) -> str:
    """Run a recipe; returns the run's id. Finished stages are found, not made again.

    Args:
        recipe: The recipe: data, objectives, training and suites.
        overrides: Keys of the recipe to change, as in `xclr run --set`: train.epochs=2
        cluster: Where the stages run: local, or the path of a cluster file. Default: XCLR_CLUSTER, else local.
        home: Where artifacts, ledger and logs live. Default: XCLR_HOME, else .xclr in the working directory.
        mode: retry, cached (earlier failures stand), force (make again) or read-only.
        until: The last stage to run.
    """
    plan = pipeline(with_source(with_overrides(recipe, overrides), cluster, home), Store(home_folder(home)))
    with open_run(plan.recipe, plan, cluster, home, mode) as run:
        futures = submit(run, plan.until("evaluate" if until == "compare" else until))
        if until == "compare":
            compare(run, plan, futures)
        settle(run, plan, futures)
        return run.id
