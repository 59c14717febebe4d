"""A method over its seeds is a run above theirs, with means and intervals as our tables have them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from infra.home.runs import read_runs, tracking_tags
from infra.tracking.links import sqlite_uri
from infra.tracking.metrics import Made, eval_name
from infra.tracking.tracker import Tracker
from tests.kit.databases import give_database
from xclr.artifact import Digest
from xclr.evaluation.score import summarise
from xclr.pipeline import pipeline
from xclr.schema import SCORES, read
from xclr.stage import network_name
from xclr.store import Store

pytestmark = pytest.mark.slow


def track(home: Path, state: Path, seeds: list[int]) -> None:
    """Tell MLflow of a finished run, of its networks those of these seeds alone."""
    (record,) = read_runs(home)
    store = Store(home)
    tracker = Tracker(sqlite_uri(state), record.recipe, state / "mlflow-artifacts", tracking_tags(record))
    for stage in pipeline(record.recipe, store):
        if stage.network is None or named_seed(stage.name) in seeds:
            artifact = store.reference(stage.digest)
            tracker.record(stage, Made(artifact, store.manifest(artifact)))
    tracker.conclude()


def named_seed(stage: str) -> int:
    return int(stage.rpartition(" ")[2])


def runs_of(state: Path, recipe: str) -> list:
    client = MlflowClient(sqlite_uri(state))
    return client.search_runs([client.get_experiment_by_name(recipe).experiment_id])


def everything(state: Path) -> list:
    """All that the runs hold, but for the time at which a mean was counted."""
    found = [(each.info.run_id, each.info.end_time, each.data.to_dictionary()) for each in runs_of(state, "own")]
    return sorted(found, key=str)


def test_means_over_seeds_are_those_of_the_table_and_grow_with_the_seeds(own_home, tmp_path):
    (record,) = read_runs(own_home)
    state = tmp_path / "state"
    state.mkdir()
    give_database(state)
    track(own_home, state, [0])
    assert not [each for each in runs_of(state, "own") if each.data.tags.get("stage") == "seeds"]
    for _ in range(2):
        track(own_home, state, [0, 1])
        before = everything(state)
    track(own_home, state, [0, 1])
    assert everything(state) == before, "what is recorded again changes nothing"

    runs = runs_of(state, "own")
    parents = {each.info.run_name: each for each in runs if each.data.tags.get("stage") == "seeds"}
    scores = read(Store(own_home).reference(Digest("comparison", str(record.scores))).path / "scores.parquet", SCORES)
    summaries = summarise(scores)
    assert set(parents) == {network_name(each.method, each.graph) for each in summaries}
    for each in summaries:
        parent = parents[network_name(each.method, each.graph)]
        assert parent.data.metrics[eval_name(each.suite, each.split, each.metric)] == pytest.approx(each.mean)
    for name, parent in parents.items():
        below = [each for each in runs if each.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert sorted(each.info.run_name for each in below) == [f"{name}, seed 0", f"{name}, seed 1"]
        assert parent.data.tags["seed"] == "0, 1" and "seed" not in parent.data.params
        assert parent.info.start_time <= min(each.info.start_time for each in below)
        assert parent.info.end_time == max(each.info.end_time for each in below)
