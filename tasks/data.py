"""Tasks of the data stages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from infra.stage import Run
from tasks.stage import make
from xclr import stages
from xclr.artifact import Artifact
from xclr.captions.download import fetch
from xclr.datafiles import placed
from xclr.heads import STATUSES
from xclr.recipe import Recipe, TargetGraph, host_of


@task(task_run_name="download", cache_policy=NO_CACHE)
def source(recipe: Recipe, home: Path) -> Recipe:
    """Fetch the table that data.url names, once, and name it in the recipe."""
    log, said = get_run_logger().info, [0]

    def progress(done: int, total: int) -> None:
        if 10 * done // max(1, total) > said[0]:
            said[0] = 10 * done // max(1, total)
            log("captions from %s: %.1f of %.1f MB", host_of(str(recipe.data.url)), done / 1e6, total / 1e6)

    fetch(recipe.data, home, progress)
    return placed(recipe, home)


@task(task_run_name="captions", cache_policy=NO_CACHE)
def captions(run: Run) -> Artifact:
    """Read, normalise and deduplicate the captions; refuse a recipe that is too large for them."""
    artifact = make(run, stages.captions(run.recipe, run.store))
    for line in stages.left_out(run.store.manifest(artifact)):
        run.board.say(line)
    stages.check_sizes(run.recipe, run.store.manifest(artifact))
    return artifact


@task(task_run_name="images", cache_policy=NO_CACHE)
def images(run: Run, captions: Artifact) -> Artifact:
    """Fetch and check every picture and pack it into shards; refuse a recipe that too few are left for."""
    for generation in stages.image_generations(run.recipe, run.store, captions):
        artifact = make(run, generation)
    _tell(run.store.manifest(artifact).stats)
    stages.check_pictures(run.recipe, run.store.manifest(artifact))
    return artifact


@task(task_run_name="embeddings", cache_policy=NO_CACHE)
def embeddings(run: Run, captions: Artifact) -> Artifact:
    """Encode each distinct caption once with the frozen text model; say what a lower precision cost."""
    artifact = make(run, stages.embeddings(run.recipe, run.store, captions))
    if line := stages.precision_lost(run.store.manifest(artifact)):
        run.board.say(line)
    return artifact


@task(task_run_name="graph", cache_policy=NO_CACHE)
def graph(run: Run, captions: Artifact, embeddings: Artifact) -> Artifact:
    """Write the nearest neighbours of every caption."""
    return make(run, stages.graph(run.recipe, captions, embeddings))


@task(task_run_name="graph report", cache_policy=NO_CACHE)
def graph_report(run: Run, captions: Artifact, images: Artifact, embeddings: Artifact, graph: Artifact) -> Artifact:
    """Write the page about the graph."""
    inputs = {"captions": captions, "images": images, "embeddings": embeddings, "graph": graph}
    return make(run, stages.graph_report(run.recipe, inputs))


@task(task_run_name="class graph {target.label}", cache_policy=NO_CACHE)
def class_graph(run: Run, target: TargetGraph, captions: Artifact, embeddings: Artifact) -> Artifact:
    """Write a similarity for every pair of classes."""
    return make(run, stages.class_graph(run.recipe, target, run.store, captions, embeddings))


def _tell(stats: Mapping[str, int]) -> None:
    """Leave a table at the task run: pictures by what became of them."""
    total = stats["rows"]
    there = [(each, stats[each]) for each in STATUSES if each in stats]
    table = [{"status": each, "rows": rows, "share": f"{rows / total:.1%}"} for each, rows in there]
    create_table_artifact(table, key="pictures", description=f"{total:,} pictures by what became of them")
