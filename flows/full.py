"""The whole pipeline: captions -> images -> embeddings -> graph -> pretraining -> evaluation -> comparison."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

import tasks
from flows.context import open_run
from infra.stage import Mode, Run
from xclr import stages
from xclr.recipe import Recipe
from xclr.stages import UNTIL

Future = Any  # PrefectFuture[Artifact]; the types of `submit` do not let a future stand for its result
Futures = dict[str, Future]


@flow(
    name="xclr-full",
    description=__doc__,
    flow_run_name="{recipe.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=16),  # type: ignore[arg-type]
    validate_parameters=True,
    persist_result=False,
)
def full(
    recipe: Recipe, cluster: str = "local", home: str | None = None, mode: Mode = "retry", until: str = UNTIL[-1]
) -> str:
    """Run a recipe; returns the run's id. Finished stages are found, not made again."""
    with open_run(recipe, cluster, home, mode) as run:
        made = data(run, until)
        checkpoints = pretrain(run, made, until)
        features, results = evaluate(run, checkpoints, made, until)
        everything = [
            *made.values(),
            *checkpoints.values(),
            *features,
            *results,
        ]  # without suites nobody reads features
        wait(everything)
        if until == UNTIL[-1]:
            finished = [each for each in results if each.state.is_completed()]
            tasks.comparison.submit(run, finished).result()
        for future in everything:
            future.result()  # raises what made it fail
        return run.id


def data(run: Run, until: str) -> Futures:
    """Captions, pictures, embeddings and graphs."""
    captions: Future = tasks.captions.submit(run)
    made: Futures = {"captions": captions}
    if _reaches(until, "images"):
        made["images"] = tasks.images.submit(run, captions)
    if _reaches(until, "embeddings"):
        made["embeddings"] = tasks.embeddings.submit(run, captions)
    if _reaches(until, "graph"):
        made["graph"] = tasks.graph.submit(run, captions, made["embeddings"])
        for target in stages.class_graphs(run.recipe):
            role = stages.class_graph_role(target)
            made[role] = tasks.class_graph.submit(run, target, captions, made["embeddings"])
    return made


def pretrain(run: Run, made: Futures, until: str) -> Futures:
    """One backbone for every objective and seed, by title."""
    if not _reaches(until, "pretrain"):
        return {}
    return {
        title: tasks.pretrain.submit(run, title, objective, seed, made)
        for title, objective, seed in stages.trainings(run.recipe)
    }


def evaluate(run: Run, checkpoints: Futures, made: Futures, until: str) -> tuple[list[Future], list[Future]]:
    """Features once per checkpoint, then every suite by itself."""
    features: list[Future] = []
    results: list[Future] = []
    for title, checkpoint in checkpoints.items() if _reaches(until, "evaluate") else ():
        features.append(tasks.features.submit(run, title, checkpoint, made))
        own = {"captions": made["captions"], "checkpoint": checkpoint, "features": features[-1]}
        results += [tasks.suite.submit(run, name, title, own) for name in stages.suites(run.recipe)]
    return features, results


def _reaches(until: str, stage: str) -> bool:
    return UNTIL.index(until) >= UNTIL.index(stage)
