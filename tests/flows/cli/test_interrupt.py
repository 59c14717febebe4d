"""Ctrl-C: once leaves the jobs running, twice ends them, and MLflow says so, which was away at first."""

from __future__ import annotations

import signal

import pytest

from infra.home.runs import read_runs
from infra.ledger import Book
from infra.processes import find_process
from infra.tracking.patient import UNTRACKED
from tests.kit.command import start_xclr
from tests.kit.databases import give_databases
from tests.kit.jobs import few_jobs, long_recipe, training_job
from tests.kit.runs import begin_with_graph
from tests.kit.tracked import points, spooled, states, tracked
from xclr.store import Store
from xclr.training.spool import SPOOL

pytestmark = pytest.mark.slow


def read_until(stream, words: str) -> None:
    """Read lines up to one that has these words."""
    assert any(words in line for line in stream), f"{words!r} was not said"


def check_states(home, digest: str, expected: str) -> None:
    """All that MLflow knows ended well, but for one training."""
    found = states(home, "long")
    assert found.pop(digest) == expected
    assert found["data"] == "FINISHED" and set(found.values()) == {"FINISHED"}


def test_the_first_ctrl_c_leaves_the_job_and_the_second_ends_it(tmp_path, served):
    home = give_databases(begin_with_graph(tmp_path / "home"))
    there = {**served.environment, "XCLR_CLUSTER": few_jobs(tmp_path)}
    arguments = ("run", long_recipe(tmp_path), "--until", "pretrain")
    away = {"MLFLOW_TRACKING_URI": "http://me:secret@127.0.0.1:9"}
    process = start_xclr(home, *arguments, environment=there | away)
    entry = training_job(home)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Ctrl-C once more" in said
    assert "Traceback" not in said and "secret" not in said
    assert said.count("MLflow cannot be told now") == 1
    assert "the MLflow server at http://127.0.0.1:9 cannot be reached" in " ".join(said.split())
    assert find_process(entry.job) is not None
    assert read_runs(home)[-1].state == "failed"
    assert states(home, "long") == {}

    again = start_xclr(home, *arguments, environment=there)
    read_until(again.stderr, "waits for")  # it attaches: the stages before are there
    check_states(home, entry.digest, "RUNNING")
    again.send_signal(signal.SIGINT)
    read_until(again.stderr, "Ctrl-C once more")
    again.send_signal(signal.SIGINT)
    _, said = again.communicate(timeout=300)
    assert "1 job ended" in said
    assert find_process(entry.job) is None
    assert Book(home).latest(entry.digest).attempt == 1
    check_states(home, entry.digest, "KILLED")
    client, runs = tracked(home, "long")
    logged = spooled(Store(home).folder("pretrain", entry.digest) / SPOOL)
    assert points(client, runs[entry.digest].info.run_id, logged) == logged
    assert not list((home / "state" / UNTRACKED).iterdir())
