"""A method over its seeds is a run above theirs, with means and intervals as our tables have them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunData, RunInfo, RunTag

from infra.home.runs import read_runs, tracking_tags
from infra.tracking.links import sqlite_uri
from infra.tracking.metrics import EVAL_STEP, Made, eval_name
from infra.tracking.seeds import means_of
from infra.tracking.tracker import Tracker
from tests.kit.databases import give_database
from xclr.artifact import Digest
from xclr.evaluation.score import summarise, t_half_width
from xclr.pipeline import pipeline
from xclr.schema import SCORES, read
from xclr.stage import network_name
from xclr.store import Store


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


@pytest.mark.slow
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
    networks = [each for each in runs if "digest" in each.data.tags]
    assert all(each.info.start_time <= each.info.end_time for each in networks)
    assert {each.data.tags["method"] for each in networks if "train.epochs" not in each.data.params} == {"random"}
    for name, parent in parents.items():
        below = [each for each in runs if each.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert sorted(each.info.run_name for each in below) == [f"{name}, seed 0", f"{name}, seed 1"]
        assert parent.data.tags["seed"] == "0, 1" and "seed" not in parent.data.params
        assert parent.info.start_time <= min(each.info.start_time for each in below)
        assert parent.info.end_time == max(each.info.end_time for each in below)


def network(seed: int, value: float) -> Run:
    """The run of a network with one score and its own interval."""
    tags = {"method": "xclr", "graph": "captions", "seed": str(seed), "digest": str(seed)}
    scores = {"eval/linear/pictures_top1": value, "eval/linear/pictures_top1/ci95": 0.5}
    info = RunInfo(str(seed), "1", "me", "FINISHED", 0, 1, "active")
    metrics = [Metric(name, each, 0, EVAL_STEP) for name, each in scores.items()]
    return Run(info, RunData(metrics, [], [RunTag(*each) for each in tags.items()]))


def test_three_seeds_have_the_interval_of_the_tables_and_two_have_none():
    three = [network(seed, value) for seed, value in enumerate((0.25, 0.5, 0.75))]
    name, interval = "eval/linear/pictures_top1", "eval/linear/pictures_top1/ci95"
    assert means_of(three) == {name: 0.5, interval: t_half_width([0.25, 0.5, 0.75])}
    assert means_of(three[:2]) == {name: 0.375}
    assert means_of(three[:1]) == {}


@pytest.mark.parametrize(
    ("split", "metric", "name"),
    [
        ("gap", "gap", "eval/own/gap"),
        ("1-percent", "top1", "eval/own/001-percent_top1"),
        ("100-percent", "top1", "eval/own/100-percent_top1"),
        ("mixed_rand", "top1", "eval/own/mixed_rand_top1"),
    ],
)
def test_scores_have_names_that_sort_as_their_numbers_do(split, metric, name):
    assert eval_name("own", split, metric) == name
