"""MLflow for real, on SQLite: everything is there, and nothing twice."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient

from infra.stage import ensure
from infra.tracking import sqlite_uri
from tests.infra.conftest import open_run
from tests.infra.test_stage import data, pretrain_stage
from xclr import stages
from xclr.spool import SPOOL, read_spool


def evaluated(home):
    run = open_run(home)
    made = data(run)
    made["checkpoint"] = ensure(run, pretrain_stage(run, made))
    made["features"] = ensure(run, stages.features(run.recipe, "simclr seed 0", made["checkpoint"], made))
    made["suite"] = ensure(run, stages.suite(run.recipe, "linear", "simclr seed 0", made, run.store))
    return run, made


def runs_of(home):
    client = MlflowClient(sqlite_uri(home / "state"))
    experiment = client.get_experiment_by_name("tiny")
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
    assert {each.dataset.digest for each in found.inputs.dataset_inputs} == {
        str(made[role].digest) for role in ("captions", "images")
    }
    assert found.info.status == "FINISHED"
    assert [each for each in runs if each.data.tags.get("stage") == "data"]
    names = {each.path for each in client.list_artifacts(found.info.run_id, "linear-simclr")}
    assert "linear-simclr/scores.parquet" in names

    evaluated(home)  # everything is a hit: nothing is logged again
    client, again = runs_of(home)
    assert len(again) == len(runs)
    assert len(client.get_metric_history(found.info.run_id, "train/loss")) == len(history)
    assert len(client.get_metric_history(found.info.run_id, "eval/linear/pictures_top1")) == 1
    assert client.get_run(found.info.run_id).info.start_time == found.info.start_time
    assert run.id


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
