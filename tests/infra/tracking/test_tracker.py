"""MLflow for real, on SQLite: everything is there, and nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from infra.stage import ensure
from infra.tracking import tracker as tracking
from infra.tracking.links import sqlite_uri
from infra.tracking.tracker import SWEPT, SweepSummary
from tests.kit.home import data_sets
from tests.kit.runs import data, open_run, planned, training_of
from tests.kit.sweeps import TAU, open_sweep, small
from xclr.evaluation import stages as evaluation_stages
from xclr.sweep.spec import spelled
from xclr.training.spool import SPOOL, Spool, read_spool
from xclr.training.watch import NOTICES


def evaluated(home):
    run = open_run(home)
    made = data(run)
    made["checkpoint"] = ensure(run, training_of(run.recipe, run.store))
    shared, title = data_sets(made), "simclr seed 0"
    made["features"] = ensure(run, evaluation_stages.features(run.recipe, title, made["checkpoint"], shared))
    shown = evaluation_stages.NetworkOutputs(made["checkpoint"], {None: made["features"]}, None, None)
    inputs = evaluation_stages.read("linear", shown, shared)
    made["suite"] = ensure(run, evaluation_stages.suite(run.recipe, "linear", title, inputs, run.store))
    return run, made


def runs_of(home, recipe="tiny"):
    client = MlflowClient(sqlite_uri(home / "state"))
    experiment = client.get_experiment_by_name(recipe)
    return client, client.search_runs([experiment.experiment_id])


@pytest.mark.slow
def test_a_pretraining_is_one_run_with_its_curve_and_its_evaluation(home):
    run, made = evaluated(home)
    client, runs = runs_of(home)
    (found,) = [each for each in runs if each.data.tags.get("digest") == made["checkpoint"].digest]
    entries = list(read_spool(made["checkpoint"].path / SPOOL))
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(e.step, e.metrics["train/loss"]) for e in entries]
    assert found.data.tags["method"] == "simclr"
    assert found.data.params["train.batch_size"] == "32"
    assert "eval/linear/pictures_top1" in found.data.metrics
    assert {each.dataset.digest for each in found.inputs.dataset_inputs} >= {
        str(made[role].digest) for role in ("captions", "images")
    }
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "simclr (augmentation), seed 0"
    names = {each.path for each in client.list_artifacts(found.info.run_id, "linear")}
    assert {"linear/scores.json", "linear/predictions.parquet"} <= names
    (data_run,) = runs_of(home, "tiny data")[1]
    assert len(runs) == 1 and data_run.data.tags["stage"] == "data"

    evaluated(home)  # everything is a hit: nothing is logged again
    client, again = runs_of(home)
    assert len(again) == len(runs)
    assert len(client.get_metric_history(found.info.run_id, "train/loss")) == len(history)
    assert len(client.get_metric_history(found.info.run_id, "eval/linear/pictures_top1")) == 1
    assert client.get_run(found.info.run_id).info.start_time == found.info.start_time

    run.store.remove(made["suite"])  # as what was damaged is, and then made again
    evaluated(home)
    one, other = client.get_metric_history(found.info.run_id, "eval/linear/pictures_top1")
    assert one.timestamp < other.timestamp
    assert len(client.get_metric_history(found.info.run_id, "train/loss")) == len(history)


def first_loss_ms(home, digest):
    client, runs = runs_of(home)
    (found,) = [each for each in runs if each.data.tags.get("digest") == digest]
    return min(each.timestamp for each in client.get_metric_history(found.info.run_id, "train/loss"))


@pytest.mark.slow
def test_a_hit_is_logged_into_a_new_database(home):
    _, made = evaluated(home)
    began = first_loss_ms(home, made["checkpoint"].digest)
    moved = home.rename(home.with_name("moved"))
    (moved / "state" / "mlflow.db").unlink()
    evaluated(moved)
    _, runs = runs_of(moved)
    (found,) = [each for each in runs if each.data.tags.get("digest") == made["checkpoint"].digest]
    assert "eval/linear/pictures_top1" in found.data.metrics
    assert found.data.tags["reused_from"]
    assert found.info.start_time == began, "a training that is logged later keeps its times"
    assert began <= found.info.end_time <= began + 600_000


def train(run, stage, step: int) -> Path:
    """Write what a training of so many steps has written, and let the tracker look."""
    out = run.store.begin(stage.digest)
    Spool(out / SPOOL, after=step - 1)(step, {"train/loss": 1.0 / step})
    run.tracker.follow(stage, out)
    return out


def tags_of(home) -> dict[str, dict[str, str]]:
    """The tags of the trainings, by digest."""
    _, runs = runs_of(home, "small")
    return {each.data.tags["digest"]: dict(each.data.tags) for each in runs if "digest" in each.data.tags}


def values(swept) -> dict[str, str]:
    return {cell.training.digest: spelled(cell.values) for cell in swept.cells}


@pytest.mark.slow
def test_a_network_of_two_sweeps_has_both_names_and_its_values_in_each(home):
    run, first = open_sweep(home, small(name="first"))
    for stage in first.levels["pretrain"]:
        train(run, stage, 1)
    run.tracker.join_sweep("first", values(first))
    other, second = open_sweep(home, small(name="another", grid={TAU: [0.2, 0.3]}))
    train(other, second.levels["pretrain"][1], 1)
    other.tracker.join_sweep("another", values(second) | {"f" * 32: "target_temperature=9"})
    alone, shared, last = (cell.training.digest for cell in (*first.cells, second.cells[1]))
    assert second.cells[0].training.digest == shared
    tags = tags_of(home)
    assert set(tags) == {alone, shared, last}
    assert {digest: each["sweep"] for digest, each in tags.items()} == {
        alone: "first", shared: "another,first", last: "another",
    }  # fmt: skip
    assert tags[shared]["sweep.first"] == tags[shared]["sweep.another"] == "target_temperature=0.2"
    assert (tags[last]["sweep.another"], "sweep.first" in tags[last]) == ("target_temperature=0.3", False)
    for tracker, swept in ((run.tracker, first), (other.tracker, second)):
        tracker.join_sweep(swept.sweep.name, values(swept))
    assert tags_of(home) == tags


def summary(done: int) -> SweepSummary:
    """What is told of a sweep of two cells, so many of which are done."""
    states = ["done"] * done + ["failed"] * (2 - done)
    rows = [{"cell": number, "state": state, "seeds": (0, 1)} for number, state in enumerate(states)]
    rows[0]["linear"] = 0.25
    tags, metrics = {"best": f"cell {done}"}, {"cells/done": float(done), "best/linear": 0.25 * done}
    return SweepSummary(
        done,
        "FINISHED" if done == 2 else "FAILED",
        tags,
        metrics,
        rows,
        {"sweep.html": f"<p>{done}".encode(), "a.svg": b"<svg/>"},
    )


def sweep_run(home):
    client, runs = runs_of(home, "small")
    (found,) = [each for each in runs if SWEPT in each.data.tags]
    return client, found


def history(client, run, metric: str) -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, metric)]


@pytest.mark.slow
def test_a_sweep_is_one_run_that_goes_on_when_the_sweep_does(home, tmp_path):
    run, _ = open_sweep(home, small())
    for _ in range(2):
        run.tracker.record_sweep("s", summary(1))
    client, before = sweep_run(home)
    assert (before.info.status, before.info.run_name) == ("FAILED", "sweep s")
    assert (before.data.tags["stage"], before.data.tags["best"]) == ("sweep", "cell 1")
    assert history(client, before, "cells/done") == [(1, 1.0)]
    again, _ = open_sweep(home, small())
    again.tracker.record_sweep("s", summary(2))
    client, after = sweep_run(home)
    assert after.info.run_id == before.info.run_id
    assert (after.info.status, after.data.tags["best"]) == ("FINISHED", "cell 2")
    assert history(client, after, "cells/done") == [(1, 1.0), (2, 2.0)]
    assert history(client, after, "best/linear") == [(1, 0.25), (2, 0.5)]
    assert {each.path for each in client.list_artifacts(after.info.run_id)} == {"table.json", "sweep.html", "a.svg"}
    folder = Path(client.download_artifacts(after.info.run_id, "", str(tmp_path)))
    table = json.loads((folder / "table.json").read_text())
    assert table["columns"] == ["cell", "state", "seeds", "linear"]
    assert table["data"] == [[0, "done", "(0, 1)", 0.25], [1, "done", "(0, 1)", None]]
    assert (folder / "sweep.html").read_text() == "<p>2"


def test_mlflow_takes_a_sweeps_cells_as_a_table(home, monkeypatch):
    run, _ = open_sweep(home, small())
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", run.tracker.tracker.mlflow.uri
    )  # which is all that its reader of tables asks
    run.tracker.record_sweep("s", summary(1))
    client, found = sweep_run(home)
    table = client.load_table(found.info.experiment_id, "table.json", [found.info.run_id])
    assert table["state"].tolist() == ["done", "failed"]


@pytest.mark.slow
def test_numbers_that_change_while_as_many_cells_are_done_or_fewer_are_the_ones_shown(home):
    run, _ = open_sweep(home, small())
    for done, best in ((1, 0.5), (2, 0.25), (2, 0.75), (1, 0.125)):  # other values are swept under the same name
        run.tracker.record_sweep("s", summary(done)._replace(metrics={"best/linear": best}))
        assert sweep_run(home)[1].data.metrics == {"best/linear": best}
    client, found = sweep_run(home)
    assert history(client, found, "best/linear") == [(1, 0.5), (2, 0.25), (2, 0.75), (2, 0.125)]


@pytest.mark.slow
def test_the_run_of_a_sweep_disturbs_no_other_and_no_other_sweep(home):
    run, swept = open_sweep(home, small())
    for stage in swept.levels["pretrain"]:
        train(run, stage, 1)
    digests = [cell.training.digest for cell in swept.cells]
    run.tracker.tracker.mlflow.uri = "http://me:secret@host:5000"  # only addresses are made of it
    links = run.tracker.compare_url(digests), [run.tracker.run_url(each) for each in digests]
    run.tracker.record_sweep("s", summary(1))
    run.tracker.record_sweep("other", summary(2))
    assert (run.tracker.compare_url(digests), [run.tracker.run_url(each) for each in digests]) == links
    again, _ = open_sweep(home, small())
    assert again.tracker.experiment_url() is None
    again.tracker.record_sweep("s", summary(2))
    again.tracker.tracker.mlflow.uri = run.tracker.tracker.mlflow.uri
    assert (again.tracker.compare_url(digests), [again.tracker.run_url(each) for each in digests]) == links
    _, runs = runs_of(home, "small")
    assert sorted(each.data.tags.get(SWEPT, "") for each in runs) == ["", "", "other", "s"]


def test_runs_of_one_method_and_seed_are_told_apart_by_what_differs(home):
    run, swept = open_sweep(home, small(grid={"train.epochs": [1, 2], "train.batch_size": [16, 32]}))
    for stage in swept.levels["pretrain"]:
        train(run, stage, 1)
    _, runs = runs_of(home, "small")
    first, *others = sorted((each.info.run_name for each in runs), key=len)
    assert first == "xclr (captions), seed 0" and len({first, *others}) == 4
    for each in runs:
        told = dict(part.split("=") for part in each.info.run_name.removeprefix(first).split(", ") if part)
        assert all(each.data.params[key] == value for key, value in told.items())
        assert each.info.run_name == first or told


def test_a_cell_of_a_sweep_over_tables_is_of_its_own_table(home, tmp_path):
    tables = {
        str(tmp_path / f"{name}.csv"): f"caption,image\na {name},https://example.org/{name}.png\n"
        for name in ("cat", "dog")
    }
    for path, content in tables.items():
        Path(path).write_text(content)
    sweep = small()
    data = sweep.recipe.data.model_copy(update={"source": "table", "path": Path(next(iter(tables)))})
    recipe = sweep.recipe.model_copy(update={"data": data})
    run, swept = open_sweep(home, small(recipe=recipe, grid={"data.path": list(tables)}))
    for stage in swept.levels["pretrain"]:
        train(run, stage, 1)
    told = {digest: each["data.path"] for digest, each in tags_of(home).items()}
    assert told == {cell.training.digest: cell.values["data.path"] for cell in swept.cells} and len(told) == 2


def test_data_that_an_older_version_logged_among_the_networks_go_on_there(home):
    run = open_run(home)
    client = run.tracker.tracker.mlflow.client
    experiment = run.tracker.tracker.mlflow.experiment(run.recipe.name)
    older = client.create_run(experiment, tags={"stage": "data"}, run_name="data").info.run_id
    ensure(open_run(home), planned(run.recipe, run.store)["captions"])
    (found,) = runs_of(home)[1]
    assert found.info.run_id == older and "data/captions/rows" in found.data.metrics
    assert client.get_experiment_by_name("tiny data") is None


def test_a_training_that_waits_has_no_run_yet(home):
    run, swept = open_sweep(home, small())
    waiting, training = swept.levels["pretrain"]
    run.tracker.follow(waiting, run.store.begin(waiting.digest))
    train(run, training, 1)
    assert set(tags_of(home)) == {training.digest}


@pytest.mark.slow
def test_every_running_training_is_followed_and_none_too_often(home, monkeypatch):
    run, swept = open_sweep(home, small())
    trainings = swept.levels["pretrain"]

    def steps() -> list[list[int]]:
        client, runs = runs_of(home, "small")
        found = {each.data.tags["digest"]: each for each in runs}
        return [[step for step, _ in history(client, found[stage.digest], "train/loss")] for stage in trainings]

    for stage in trainings:
        train(run, stage, 1)
    assert steps() == [[1], [1]]
    for stage in trainings:
        train(run, stage, 2)
    assert steps() == [[1], [1]]
    monkeypatch.setattr(tracking, "FOLLOW_EVERY_S", 0)
    for stage in trainings:
        train(run, stage, 3)
    assert steps() == [[1, 2, 3], [1, 2, 3]]

    out = run.store.begin(trainings[0].digest)
    (out / NOTICES).write_text("nothing is learned")
    train(run, trainings[0], 4)
    warned = {digest: tags.get("warning") for digest, tags in tags_of(home).items()}
    assert warned == {str(trainings[0].digest): "nothing is learned", str(trainings[1].digest): None}
    (out / NOTICES).unlink()
    train(run, trainings[0], 5)
    assert tags_of(home)[str(trainings[0].digest)]["warning"] == ""
