"""MLflow that goes away, and uploads that are killed: the work goes on, and in the end each point is there once."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from infra.home.catch_up import catch_up
from mlflow import MlflowClient

from infra import servers
from infra.stage import ensure
from infra.tracking import metrics, patient
from infra.tracking.links import sqlite_uri
from infra.tracking.patient import UNTRACKED, PatientTracker
from infra.tracking.tracker import Tracker
from tests.kit.databases import give_database, give_databases
from tests.kit.recipes import TINY
from tests.kit.runs import data, open_run, pretrained, training_of
from xclr.recipe import Recipe
from xclr.store import Store
from xclr.training.spool import SPOOL, Spool, read_spool

STEPS, NAMES = 12, ("train/loss", "train/learning_rate", "train/a", "train/b", "train/c")


class Killed(BaseException):
    """What ends a process in the place of SIGKILL."""


def points(client: MlflowClient, run: str, names) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every point, as often as it is there."""
    return {name: [(each.step, each.value) for each in client.get_metric_history(run, name)] for name in names}


def expected(spool: Path) -> dict[str, list[tuple[int, float]]]:
    """What a spool holds."""
    found: dict[str, list[tuple[int, float]]] = {}
    for point in read_spool(spool):
        for name, value in point.metrics.items():
            found.setdefault(name, []).append((point.step, value))
    return found


@pytest.mark.parametrize("done", [False, True], ids=["before it is stored", "after"])
def test_an_upload_that_is_killed_at_any_request_loses_no_point(done, home, monkeypatch):
    """Batches that cut steps; the process after is another, and knows nothing of the one before."""
    monkeypatch.setattr(metrics, "BATCH", 7)
    recipe, store = Recipe.model_validate(TINY), Store(home)
    give_database(home / "state")
    stage = training_of(recipe, store)
    out = store.begin(stage.digest)
    spool, real, kills = Spool(out / SPOOL, 0), MlflowClient.log_batch, 0
    for step in range(1, STEPS + 1):
        spool(step, {name: step / (place + 1) for place, name in enumerate(NAMES)})
    while True:
        left = kills

        def log_batch(client, *arguments, **named):
            nonlocal left
            if left == 0 and not done:
                raise Killed
            real(client, *arguments, **named)
            if left == 0:
                raise Killed
            left -= 1

        monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
        try:
            Tracker(sqlite_uri(home / "state"), recipe, home / "state" / "mlflow-artifacts", {}).follow(stage, out)
            break
        except Killed:
            kills += 1
    assert kills >= 4, "it was killed at the parameters and at three batches at least"
    client = MlflowClient(sqlite_uri(home / "state"))
    experiment = client.get_experiment_by_name(recipe.name).experiment_id
    (run,) = client.search_runs([experiment])
    assert points(client, run.info.run_id, NAMES) == expected(out / SPOOL)
    assert run.data.params["train.batch_size"] == "32"
    assert {each.tags[0].value for each in run.inputs.dataset_inputs} == {"captions", "images"}


def test_threads_are_held_up_once_and_told_once(tmp_path, monkeypatch):
    """The store is a folder of ours that is no database."""
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 1000)
    said: list[str] = []
    tracker = PatientTracker(
        Tracker(sqlite_uri(tmp_path), Recipe.model_validate(TINY), tmp_path / "artifacts", {}),
        said.append, tmp_path / UNTRACKED / "run",
    )  # fmt: skip
    threads = [threading.Thread(target=tracker.join_sweep, args=("x", {})) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    began = time.monotonic()
    assert [tracker.run_url("x"), tracker.experiment_url(), tracker.compare_url(["x"])] == [None] * 3
    assert time.monotonic() - began < patient.AGAIN_AFTER_S, "nobody waits for it"
    assert len(said) == 1 and "the work goes on" in said[0]
    assert len(tracker.kept) == 8 and tracker.mark.exists()
    tracker.close()
    assert len(said) == 2 and "next xclr command" in said[1]


def test_the_end_of_a_run_waits_for_few_requests_and_one_that_never_succeeds_keeps_no_other(tmp_path):
    done: list[int] = []

    def fails() -> None:
        done.append(-1)
        raise ConnectionError

    tracker = PatientTracker(
        Tracker(sqlite_uri(tmp_path), Recipe.model_validate(TINY), tmp_path / "artifacts", {}),
        lambda line: None, tmp_path / UNTRACKED / "run",
    )  # fmt: skip
    tracker.kept = [fails, *(partial(done.append, number) for number in range(5))]
    tracker.close()
    assert done == [-1, 0, 1, 2, 3, 4, -1, -1] and tracker.kept == [fails]
    tracker.kept = [fails] * 100
    done.clear()
    tracker.close()
    assert len(done) == 3, "not one for each of the hundred"


@pytest.mark.slow
def test_a_server_that_dies_in_a_run_costs_one_warning_and_is_told_by_the_next_command(home, capsys):
    state = give_databases(home) / "state"
    with servers.using(servers.MLFLOW, state) as uri:
        run = open_run(home, uri=uri)
        said: list[str] = []
        run.tracker.say = said.append
        data(run)
        server = psutil.Process(int(servers.find(servers.MLFLOW, state).process.rsplit("/", 2)[1]))
        for each in (*server.children(recursive=True), server):
            os.kill(each.pid, signal.SIGKILL)
        checkpoint = pretrained(run)  # a warning, and no more
        assert len(said) == 1 and run.tracker.kept
        run.tracker.close()
        run.close("completed")
    assert len(said) == 2 and [each.name for each in (state / UNTRACKED).iterdir()] == [run.id]
    for _ in range(2):  # the second finds nothing to do
        catch_up(home, sqlite_uri(state), state / "mlflow-artifacts")
    assert not list((state / UNTRACKED).iterdir())
    client = MlflowClient(sqlite_uri(state))
    found = client.search_runs([client.get_experiment_by_name(run.recipe.name).experiment_id])
    (training,) = [each for each in found if each.data.tags.get("digest") == checkpoint.digest]
    wanted = expected(checkpoint.path / SPOOL)
    assert points(client, training.info.run_id, wanted) == wanted
    assert training.info.status == "FINISHED"
    assert len([each for each in found if each.data.tags.get("stage") == "data"]) == 1
    again = open_run(home, "read-only")
    assert ensure(again, training_of(again.recipe, again.store)) == checkpoint
    assert points(client, training.info.run_id, wanted) == wanted
