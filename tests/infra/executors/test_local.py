"""Processes of another machine, or of this one under another name: only what they write and lock is seen."""

from __future__ import annotations

import os
import time

import pytest

from infra.executors.executor import STAGE, executor_named
from infra.executors.local import LAST_WORDS
from infra.ledger import Entry, JobState
from infra.processes import now
from xclr.job import FAILURE, PROGRESS, RESULT
from xclr.store import LOCK, only_writer

ELSEWHERE = "a-container-of-before/99/1795620090123"
LONG_AGO_S = 2 * LAST_WORDS.total_seconds()


@pytest.fixture(name="out")
def _out(tmp_path):
    """Where an attempt was claimed a minute ago."""
    out = tmp_path / "artifacts" / "pretrain" / "d"
    out.mkdir(parents=True)
    written(out / STAGE, 60)
    return out


def written(path, ago_s: float) -> None:
    path.touch()
    os.utime(path, (time.time() - ago_s, time.time() - ago_s))


def state(out) -> JobState:
    entry = Entry(
        digest="d", kind="pretrain", stage="pretrain", run="r", attempt=1, owner=ELSEWHERE, claimed=now(),
        job=ELSEWHERE,
    )  # fmt: skip
    return executor_named("local").state(entry.model_copy(update={"claimed": entry.claimed - 4 * LAST_WORDS}), out)


def test_one_that_has_not_begun_may_still(out):
    assert state(out) is JobState.RUNNING
    written(out / LOCK, 90)  # of the attempt before
    assert state(out) is JobState.RUNNING


def test_one_that_holds_its_lock_runs(out):
    with only_writer(out):
        written(out / LOCK, LONG_AGO_S)
        assert state(out) is JobState.RUNNING


def test_one_that_began_and_holds_no_lock_is_gone_at_once_whatever_its_machine_was_called(out):
    written(out / LOCK, LONG_AGO_S)
    assert state(out) is JobState.GONE
    written(out / PROGRESS, 1)
    assert state(out) is JobState.RUNNING, "its last words may come"
    written(out / PROGRESS, LONG_AGO_S)
    assert state(out) is JobState.GONE


@pytest.mark.parametrize(("name", "expected"), [(RESULT, JobState.COMPLETED), (FAILURE, JobState.FAILED)])
def test_what_it_left_counts(out, name, expected):
    written(out / LOCK, LONG_AGO_S)
    (out / name).write_text("{}")
    assert state(out) is expected


def test_a_job_that_python_gave_no_memory_lacked_it(out):
    (out / FAILURE).write_text('{"error": "MemoryError", "message": "MemoryError: ", "remedy": ""}')
    assert state(out) is JobState.OUT_OF_MEMORY
