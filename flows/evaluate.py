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
from infra.stage import Run, ensure
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
        made, checkpoints = _there(run)
        judged = submit_suites(run, checkpoints, made)
        compare(run, judged.scores, judged.everything)
        return run.id


class Judged(NamedTuple):
    """Futures of an evaluation: the suites', and all of them."""

    scores: list[Future]
    everything: list[Future]


def submit_suites(run: Run, checkpoints: Mapping[str, Any], made: Mapping[str, Any]) -> Judged:
    """Submit the data sets, what suites read of each checkpoint, and every suite of every checkpoint.

    A suite waits for what it reads and for nothing else, so that one that fails stops no other.
    """
    data = _submit_data_sets(run, made)
    scores, everything = [], list(data.values())
    for title, objective, _ in stages.checkpoints(run.recipe, run.store, stages.references(run.recipe, run.store)):
        if title not in checkpoints:
            continue
        own = {**made, **data, "checkpoint": checkpoints[title]}
        chosen, wanted = stages.judged_by(run.recipe, objective)
        for what in wanted:
            inputs = {name: own[name] for name in stages.inputs_of(run.recipe, what)}
            named = tasks.made_of.with_options(task_run_name=stages.name_of(what, title))
            own[what] = named.submit(run, what, title, inputs)
            everything.append(own[what])
        for name in chosen:
            inputs = {each: own[each] for each in stages.roles_of(name).values()}
            scores.append(tasks.suite.submit(run, name, title, inputs))
    return Judged(scores, [*everything, *scores])


def submit_references(run: Run) -> dict[str, Future]:
    """Submit the networks from elsewhere; their futures by title."""
    return {each.label: tasks.reference.submit(run, each) for each in run.recipe.evaluate.references}


def _submit_data_sets(run: Run, made: Mapping[str, Any]) -> dict[str, Future]:
    roles = stages.evaluation_data(run.recipe, run.store, stages.references(run.recipe, run.store))
    data: dict[str, Future] = {}
    for role in roles:
        if role == "export":
            data[role] = tasks.export.submit(run, made["captions"], made["images"])
        else:
            dataset: Any = role.partition(":")[2]
            data[role] = tasks.benchmark.submit(run, dataset, data.get("export"))
    return data


def compare(run: Run, scores: Sequence[Future], everything: Sequence[Future]) -> None:
    """Gather the scores of the suites that finished in one table and publish it; raises what made anything fail."""
    wait(list(everything))
    finished = [each for each in scores if each.state.is_completed()]
    if finished or all(each.state.is_completed() for each in everything):  # a recipe may have no suites
        publish_table(run, tasks.comparison.submit(run, finished).result())
    settle(run, everything)


def _there(run: Run) -> tuple[dict[str, Artifact], dict[str, Any]]:
    """The data and the checkpoints that the evaluation starts from, by role and by title.

    A checkpoint that is not there is told and left out. Raises StoreError when no checkpoint, or no data, are there.
    """
    known = stages.references(run.recipe, run.store)
    found = {name: artifact for name, artifact in known.items() if run.store.find(artifact.digest) is not None}
    trained = [title for title, _, _ in stages.trainings(run.recipe)]
    lost = [name for name in ("captions", "images") if name not in found] or [
        title for title in trained if title not in found
    ]
    if not {"captions", "images"} <= set(found) or not any(title in found for title in trained):
        raise StoreError(f"{lost[0]} of recipe {run.recipe.name} is not in {run.store.home}", "run xclr-full first")
    for title in lost:
        run.board.say(f"{title} is not judged: it is not in {run.store.home}")
    made = {role: found[role] for role in ("captions", "images")}
    for title, _, stage in stages.checkpoints(run.recipe, run.store, known):
        if title in found and stage.kind == "pretrain":
            ensure(run, stage)  # is there; told to MLflow, which may be another one than before
    return made, {title: found[title] for title in trained if title in found} | submit_references(run)
