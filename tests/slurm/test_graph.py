"""The graph as a job array: a pair of parts an element, of which one that is killed runs again alone."""

from __future__ import annotations

import threading

from infra.cluster import Cluster
from infra.home.status import status, view
from infra.ledger import JobState
from infra.resources import Resources
from infra.slurm.queue import slurm_ids
from infra.stage import ensure
from tests.kit.home import write_vectors
from tests.kit.polling import until
from tests.kit.recipes import TINY
from tests.kit.runs import open_run
from tests.kit.slurm import element, elements_named
from tests.kit.stages import commit
from xclr import schema, shards
from xclr.captions import stages as captions_stages
from xclr.graph import stages as graph_stages
from xclr.graph.neighbours import run as run_graph
from xclr.recipe import Recipe

PIECES = 6  # pairs of three parts


def recipe(part: int, block: int) -> Recipe:
    graph = {"k": 4, "cutoff": None, "part": part, "block": block}
    return Recipe.model_validate(TINY | {"graph": graph, "retries": {"lost_after_s": 5}, "name": "graph"})


def test_a_killed_element_of_the_array_runs_again_alone(cluster, home):
    slow = Resources(executor="slurm", threads=1, timeout_min=60, parallel=2)
    run = open_run(home, recipe=recipe(1000, 1), cluster=Cluster(name="test", stages={"graph": slow}))
    captions = ensure(run, captions_stages.captions(run.recipe, run.store))
    embeddings = commit(run.store, graph_stages.embeddings(run.recipe, run.store, captions), write_vectors)
    nodes = int(run.store.manifest(captions).stats["distinct"])
    stage = graph_stages.graph(recipe(-(-nodes // 3), 1), captions, embeddings)
    assert stage.pieces(run.store).shards == PIECES
    out = run.store.reference(stage.digest).path
    thread = threading.Thread(target=ensure, args=(run, stage))
    thread.start()
    entry = until(lambda: (found := run.book.latest(stage.digest)) and found.job and found)
    victim = until(lambda: element(out, slurm_ids(entry.job)[0]))
    victim.kill()
    second = until(lambda: (found := run.book.latest(stage.digest)) and found.attempt == 2 and found.job and found)
    (line,) = [each for each in status(view(home)).jobs if each.stage == "graph"]
    assert line.progress is not None and line.progress.total == nodes * (nodes - 1) // 2
    thread.join()
    assert second.before == (JobState.GONE,)
    assert len(elements_named(second.name)) == 1, "one element was missing"
    whole = graph_stages.graph(recipe(1000, 64), captions, embeddings)
    assert whole.digest == stage.digest, "how the work is cut names nothing"
    (folder := home / "whole").mkdir()

    run_graph(whole, folder, lambda *numbers: None)
    table = schema.graph_knn(4)
    made, expected = (
        schema.read(path / "graph_knn.parquet", table) for path in (run.store.find(stage.digest).path, folder)
    )
    assert made.equals(expected)
    assert not (run.store.find(stage.digest).path / shards.SHARDS).exists()
