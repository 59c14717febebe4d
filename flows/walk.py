"""How a flow walks a plan: a task a stage, begun when what it reads is there; then what came of them all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prefect.futures import wait
from prefect.logging import get_run_logger

import tasks
from flows.context import home_folder, recording_failure
from flows.publish import publish_links, publish_page, publish_table
from infra.run import Run
from xclr.artifact import Digest
from xclr.captions.source import is_fetched
from xclr.evaluation.stages import comparison
from xclr.recipe import Recipe
from xclr.resolved import resolve
from xclr.stage import STEPS, Plan, Stage, Step
from xclr.sweep.spec import Sweep

Futures = Mapping[Digest, Any]  # PrefectFuture[Artifact] by the digest of its stage


def with_source(recipe: Recipe, cluster: str | None, home: str | None, sweep: Sweep | None = None) -> Recipe:
    """The recipe with its table fetched, where only data.url names one, and with what it leaves open resolved.

    A table that cannot be fetched is a run that failed.
    """
    there = recipe
    if is_fetched(recipe.data):
        with recording_failure(recipe, sweep, cluster, home):
            there = tasks.source.submit(recipe, home_folder(home)).result()
    found = resolve(there, home_folder(home))
    if found.line:
        get_run_logger().info(found.line)
    return found.recipe


def submit(run: Run, stages: Iterable[Stage]) -> Futures:
    """Submit a task for each stage; it waits for those among them that it reads, and for nothing else.

    So one that fails stops what reads it and no other.
    """
    futures: dict[Digest, Any] = {}
    stages = by_step(stages)
    steps = frozenset(stage.kind.step for stage in stages)
    for stage in stages:
        before = [futures[each.digest] for each in stage.inputs.values() if each.digest in futures]
        futures[stage.digest] = tasks.make.submit(run, stage, steps, wait_for=before, return_state=False)
    return futures


def by_step(stages: Iterable[Stage]) -> list[Stage]:
    """All trainings before what judges any: a task that waits takes a thread of the runner, and trainings need some."""
    return sorted(stages, key=lambda stage: STEPS.index(stage.kind.step))


def compare(run: Run, plan: Plan, futures: Futures) -> None:
    """Gather the scores of the suites that finished in one table, and publish it and its page."""
    wait(list(futures.values()))
    there = {digest for digest, future in futures.items() if future.state.is_completed()}
    scores = [run.store.reference(stage.digest) for stage in plan if stage.kind.judges and stage.digest in there]
    if scores or len(there) == len(futures):  # a recipe may have no suites
        table = tasks.make.submit(run, comparison(run.recipe, scores), frozenset[Step]()).result()
        run.save(scores=str(table.digest))
        publish_table(run, table)
        publish_page(run, list(plan), table)


def settle(run: Run, plan: Plan, futures: Futures) -> None:
    """Wait for every stage and publish the links to MLflow, then raise what made one fail."""
    wait(list(futures.values()))
    publish_links(run, plan)
    for future in futures.values():
        future.result()
