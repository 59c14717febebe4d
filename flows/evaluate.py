"""Evaluation: features once per checkpoint, then every suite by itself, and the table of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prefect import flow
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

import tasks
from flows.context import cancel_jobs, open_run
from flows.data import Future, settle, with_source
from flows.publish import publish_table
from infra.stage import Run
from xclr import stages
from xclr.artifact import Artifact
from xclr.errors import StoreError
from xclr.recipe import Recipe, with_overrides


@flow(
    name="xclr-evaluate",
    description="The suites of a recipe on checkpoints that are there already; trains nothing.",
    flow_run_name="{recipe.name} evaluate",
    task_runner=ThreadPoolTaskRunner(max_workers=16),  # type: ignore[arg-type]
    on_cancellation=[cancel_jobs],
)
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
    with open_run(with_source(with_overrides(recipe, overrides), home), cluster, home, "retry") as run:
        made = _there(run)
        checkpoints = {title: made[title] for title, _, _ in stages.trainings(run.recipe)}
        judged = submit_suites(run, checkpoints, made)
        compare(run, judged.scores, [*judged.features, *judged.scores])
        return run.id


class Judged(NamedTuple):
    """Futures of an evaluation."""

    features: list[Future]
    scores: list[Future]


def submit_suites(run: Run, checkpoints: Mapping[str, Any], made: Mapping[str, Any]) -> Judged:
    """Submit the features and every suite of every checkpoint."""
    judged = Judged([], [])
    for title, checkpoint in checkpoints.items():
        features = tasks.features.submit(run, title, checkpoint, made)
        own = {"captions": made["captions"], "checkpoint": checkpoint, "features": features}
        for dataset in stages.benchmarks(run.recipe):
            own[f"features:{dataset}"] = tasks.folder_features.submit(run, title, checkpoint, dataset)
        judged.features.extend(future for role, future in own.items() if role.startswith("features"))
        judged.scores.extend(tasks.suite.submit(run, name, title, own) for name in stages.suites(run.recipe))
    return judged


def compare(run: Run, scores: Sequence[Future], everything: Sequence[Future]) -> None:
    """Gather the scores of the suites that finished in one table and publish it; raises what made anything fail."""
    wait(list(everything))
    finished = [each for each in scores if each.state.is_completed()]
    if finished or all(each.state.is_completed() for each in everything):  # a recipe may have no suites
        publish_table(run, tasks.comparison.submit(run, finished).result())
    settle(run, everything)


def _there(run: Run) -> dict[str, Artifact]:
    """The artifacts that the evaluation starts from, by role or title; raises StoreError for one that is missing."""
    made = stages.references(run.recipe, run.store)
    for name, artifact in made.items():
        if run.store.find(artifact.digest) is None:
            raise StoreError(f"{name} of recipe {run.recipe.name} is not in {run.store.home}", "run xclr-full first")
    return made
