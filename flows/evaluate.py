"""Evaluation: features once per checkpoint, then every suite by itself, and the table of all."""

from __future__ import annotations

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.context import cancel_jobs, home_folder, open_run
from flows.failing import saying_why
from flows.notify import notify
from flows.walk import compare, settle, submit, with_source
from infra.run import Run
from infra.stage import ensure
from xclr.captions.stages import CAPTIONS
from xclr.errors import StoreError
from xclr.evaluation.stages import check_suites
from xclr.images.stages import IMAGES
from xclr.pipeline import other_pictures, pipeline
from xclr.recipe import Recipe, with_overrides
from xclr.stage import Plan, Stage
from xclr.store import Store
from xclr.training.stages import PRETRAIN


@flow(
    name="xclr-evaluate",
    description="The suites of a recipe on checkpoints that are there already; trains nothing.",
    flow_run_name="{recipe.name} evaluate",
    task_runner=ThreadPoolTaskRunner(max_workers=16),  # type: ignore[arg-type]
    on_cancellation=[cancel_jobs],
    on_completion=[notify],
    on_failure=[notify],
    on_crashed=[notify],
)
@saying_why
def evaluate(
    recipe: Recipe,
    overrides: tuple[str, ...] = (),
    cluster: str | None = None,
    home: str | None = None,
) -> str:
    """Judge the recipe's checkpoints by its suites; returns the run's id.

    Args:
        recipe: The recipe whose checkpoints are judged; `evaluate` names the suites.
        overrides: Keys of the recipe to change, as in `xclr run --set`: evaluate.bootstrap=500
        cluster: Where the stages run: local, or the path of a cluster file. Default: XCLR_CLUSTER, else local.
        home: Where artifacts, ledger and logs live. Default: XCLR_HOME, else .xclr in the working directory.
    """
    plan = pipeline(with_source(with_overrides(recipe, overrides), cluster, home), Store(home_folder(home)))
    check_suites(plan.recipe)
    with open_run(plan.recipe, plan, cluster, home, "retry") as run:
        futures = submit(run, judging(run, plan))
        compare(run, plan, futures)
        settle(run, plan, futures)
        return run.id


def judging(run: Run, plan: Plan) -> list[Stage]:
    """The stages of an evaluation: other pictures to judge, and all that judges a network that is there or elsewhere.

    A checkpoint that is not there is told and left out. Raises StoreError when none, or no data, are there.
    """
    others = other_pictures(plan.recipe, plan.store)
    data: list[Stage] = [] if len(others) else [*plan.of(CAPTIONS), *plan.of(IMAGES)[-1:]]
    trained = plan.of(PRETRAIN)
    lost = {stage.digest: stage for stage in (*data, *trained) if run.store.find(stage.digest) is None}
    if any(stage.digest in lost for stage in data) or all(stage.digest in lost for stage in trained):
        first = next(iter(lost.values())).name
        name = run.recipe.name
        remedy = f"xclr run with its recipe, or as it was: xclr retry {name}"
        raise StoreError(f"{first} of recipe {name} is not in {run.store.home}", remedy)
    for stage in data:
        stage.check(run.recipe, run.store.manifest(run.store.reference(stage.digest)), {"evaluate"})
    for stage in trained:
        if stage.digest in lost:
            title = stage.name.removeprefix("pretrain ")
            run.board.say(f"{title} is not judged: it is not in {run.store.home}")
        else:
            ensure(run, stage)  # is there; told to MLflow, which may be another one than before
    return [*others, *(stage for stage in plan if stage.kind.step == "evaluate" and stage.network not in lost)]
