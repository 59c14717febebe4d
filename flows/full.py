"""The whole pipeline: captions -> images -> embeddings -> graph -> pretraining -> evaluation -> comparison."""

from __future__ import annotations

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.context import cancel_jobs, open_run
from flows.data import settle, submit_data, with_source
from flows.evaluate import Judged, compare, submit_references, submit_suites
from flows.pretrain import submit_pretraining
from infra.stage import Mode
from xclr.recipe import Recipe, with_overrides
from xclr.stages import Until, reaches


@flow(
    name="xclr-full",
    description="Captions, pictures, embeddings, graph, pretraining, evaluation and comparison of a recipe.",
    flow_run_name="{recipe.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=16),  # type: ignore[arg-type]
    on_cancellation=[cancel_jobs],
)
def full(
    recipe: Recipe,
    overrides: tuple[str, ...] = (),
    cluster: str | None = None,
    home: str | None = None,
    mode: Mode = "retry",
    until: Until = "compare",
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
    with open_run(with_source(with_overrides(recipe, overrides), home), cluster, home, mode) as run:
        made = submit_data(run, until)
        checkpoints = submit_pretraining(run, made) if reaches(until, "pretrain") else {}
        everything = [*made.values(), *checkpoints.values()]
        judged = Judged([], [])
        if reaches(until, "evaluate"):
            judged = submit_suites(run, checkpoints | submit_references(run), made)
        everything += judged.everything
        if reaches(until, "compare"):
            compare(run, judged.scores, everything)
        else:
            settle(run, everything)
        return run.id
