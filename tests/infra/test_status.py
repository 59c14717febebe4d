"""status and logs: facts of runs and jobs, as they are read while runs write."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta

import pytest

from infra.ledger import Book, Entry, JobState, now, process_id, this_process
from infra.runs import new_record, write_record
from infra.status import LATEST, find_job, status, view
from tests.infra.conftest import TINY
from xclr.errors import DataError, StoreError
from xclr.job import PROGRESS, record_failure
from xclr.recipe import Recipe

RECIPE = Recipe.model_validate(TINY)
STARTED = now() - timedelta(minutes=10)


@pytest.fixture
def job():
    """A process that lives as long as the test."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process_id(process.pid)
    process.communicate(b"\n")


def run(home, *letters, state="completed"):
    record = new_record(RECIPE, (letter * 32 for letter in letters)).model_copy(update={"state": state})
    write_record(home, record)
    return record


def attempt(home, record, letter, **fields):
    """A ledger entry and its directory."""
    entry = Entry(
        digest=letter * 32, kind="pretrain", stage=f"pretrain {letter}", run=record.run, attempt=1,
        owner="host/1/1", claimed=STARTED, job="host/2/2", log=f"/logs/{letter}",
    ).model_copy(update=fields)  # fmt: skip
    Book(home).claim(entry)
    out = home / "artifacts" / entry.kind / entry.digest
    out.mkdir(parents=True)
    return entry, out


def test_an_empty_home_has_nothing_and_stays_empty(home):
    assert status(view(home)).model_dump() == {"runs": (), "jobs": (), "sweeps": ()}
    assert not home.exists()


def test_a_running_job_tells_its_place_time_and_progress(home, job):
    record = run(home, "a", state="running")
    _, out = attempt(home, record, "a", job=job)
    (out / PROGRESS).write_text(json.dumps({"done": 3, "total": 8}))
    seen = view(home)
    (line,) = status(seen).jobs
    assert (line.run, line.stage, line.job_id, line.state) == (record.run, "pretrain a", job, JobState.RUNNING)
    assert line.node == job.split("/")[0]
    assert line.elapsed_s >= 600
    assert (line.reason, line.log) == ("", "/logs/a")
    assert seen.jobs[0].progress == (3, 8, None, None)


def test_a_failed_job_says_why_and_time_stands_still(home):
    record = run(home, "a", "b", "c", state="failed")
    ended = STARTED + timedelta(seconds=90)
    _, out = attempt(home, record, "a", state=JobState.FAILED, ended=ended)
    record_failure(out, DataError("row 7 has no caption", "mend it"))
    attempt(home, record, "b", state=JobState.GONE, ended=ended)
    attempt(home, record, "c", state=JobState.CANCELLED, ended=ended)
    lines = {line.stage: line for line in status(view(home)).jobs}
    assert {line.elapsed_s for line in lines.values()} == {90.0}
    reasons = [lines[f"pretrain {letter}"].reason for letter in "abc"]
    assert reasons == ["row 7 has no caption", "ended without a result", ""]


def test_stages_in_the_orchestrators_process_are_shown_while_they_run_and_when_they_failed(home):
    record = run(home, "a", "b", "c", state="running")
    me = this_process()
    for letter, state in (("a", None), ("b", JobState.COMPLETED), ("c", JobState.FAILED)):
        attempt(home, record, letter, owner=me, job=me, state=state, log=None)
    assert {(line.stage, line.state.value) for line in status(view(home)).jobs} == {
        ("pretrain a", "running"),
        ("pretrain c", "failed"),
    }


def test_the_running_and_the_last_few_runs_are_shown_or_all(home):
    old = run(home, "a", state="running")
    ended = [run(home, "b") for _ in range(LATEST + 2)]
    attempt(home, ended[0], "b", state=JobState.COMPLETED)
    seen = view(home)
    assert [each.run for each in seen.runs] == [each.run for each in (old, *ended[2:])]
    assert seen.jobs == ()
    everything = view(home, everything=True)
    assert len(everything.runs) == LATEST + 3
    assert len(everything.jobs) == 1


def test_a_job_that_a_shown_run_waits_for_is_shown_whoever_submitted_it(home, job):
    first = run(home, "a", state="failed")
    attempt(home, first, "a", job=job)
    run(home, "a", state="running")
    for _ in range(LATEST):
        run(home, "b")
    seen = view(home)
    assert first not in seen.runs
    assert [line.run for line in status(seen).jobs] == [first.run]


def test_a_job_is_found_by_id_number_stage_and_digest(home, job):
    record = run(home, "a", "b")
    entry, _ = attempt(home, record, "a", job=job)
    attempt(home, record, "b")
    for name in (job, job.split("/")[1], "pretrain a", "aaaaaaaa"):
        assert find_job(home, name).entry == entry
    with pytest.raises(StoreError, match=r"no job 'pretrain q'(.|\n)*pretrain"):
        find_job(home, "pretrain q")
    with pytest.raises(StoreError, match="nothing has run"):
        find_job(home / "empty", "pretrain a")
