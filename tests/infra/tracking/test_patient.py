"""MLflow that goes away, and uploads that are killed: the work goes on, and in the end each point is there once."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest
from mlflow import MlflowClient

from infra.tracking import metrics, patient
from infra.tracking.links import sqlite_uri
from infra.tracking.patient import UNTRACKED, PatientTracker
from infra.tracking.tracker import Tracker
from tests.kit.databases import give_database
from tests.kit.recipes import TINY
from tests.kit.runs import training_of
from tests.kit.tracked import points, spooled, tracked
from xclr.recipe import Recipe
from xclr.store import Store
from xclr.training.spool import SPOOL, Spool

STEPS, NAMES = 12, ("train/loss", "train/learning_rate", "train/a", "train/b", "train/c")


class Killed(BaseException):
    """What ends a process in the place of SIGKILL."""


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
    client, runs = tracked(home, recipe.name)
    run = runs[str(stage.digest)]
    assert points(client, run.info.run_id, NAMES) == spooled(out / SPOOL)
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
    assert len(tracker.kept) == 8
    tracker.close(ended=True)
    assert len(said) == 1 and "the work goes on; xclr sync" in said[0]
    assert tracker.mark.exists()


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
    tracker.close(ended=True)
    assert done == [-1, 0, 1, 2, 3, 4, -1, -1] and tracker.kept == [fails]
    tracker.kept = [fails] * 100
    done.clear()
    tracker.close(ended=True)
    assert len(done) == 3, "not one for each of the hundred"
