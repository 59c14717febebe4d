"""Cancelling ends a run and its jobs, whoever does it, and no job that another live run waits for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from infra.cancel import cancel_flow_run, cancel_run, find_run
from infra.home.runs import cancel_mark, new_record, read_runs, scan_runs, shown_state, write_record
from infra.ledger import Entry, JobState
from infra.processes import find_process, now, process_id
from infra.stage import decide, ensure
from tests.kit.polling import until
from tests.kit.recipes import ALONE, TINY, tiny
from tests.kit.runs import open_run
from tests.kit.sweeps import TAU, open_sweep, small
from tests.kit.trainings import Training
from xclr.captions import stages as captions_stages
from xclr.errors import JobError, StoreError
from xclr.recipe import Recipe
from xclr.store import write_atomically


@pytest.mark.slow
def test_a_live_run_leaves_and_its_job_ends_and_the_next_run_makes_it_again(home):
    with Training(home, tiny(), held_at=1) as training:
        bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            process, entry = training.start(), training.entry()
            done = cancel_run(home, find_run(home, "tiny"))
            assert [each.job for each in done.ended] == [entry.job]
            assert find_process(entry.job) is None
            assert process.wait() == 1
            assert training.book.latest(training.digest).state is JobState.CANCELLED
            record = read_runs(home)[-1]
            assert (record.state, record.ended is not None) == ("cancelled", True)
            assert not cancel_mark(home, record.run).exists()
            assert bystander.poll() is None
        finally:
            bystander.kill()
        training.release()
        training.follow().result()
        assert training.book.latest(training.digest).attempt == 2


@pytest.mark.slow
def test_a_job_that_another_run_waits_for_goes_on(home):
    with Training(home, tiny(), ALONE, held_at=1) as training:
        processes = [training.start() for _ in range(2)]
        until(lambda: len([each for each in read_runs(home) if shown_state(each) == "running"]) == 2)
        entry = training.entry()
        first, second = read_runs(home)
        done = cancel_run(home, first)
        assert (done.ended, [each.job for each in done.left]) == ((), [entry.job])
        until(lambda: {each.run: each.state for each in read_runs(home)}[first.run] == "cancelled")
        assert find_process(entry.job) is not None
        assert [each.job for each in cancel_run(home, second).ended] == [entry.job]
        assert find_process(entry.job) is None
        assert [process.wait() for process in processes] == [1, 1]


@pytest.mark.slow
def test_the_jobs_of_a_dead_run_end_by_its_prefect_id(home):
    with Training(home, tiny(), ALONE, held_at=1) as training:
        process, entry = training.start(), training.entry()
        process.kill()
        process.wait()
        record = read_runs(home)[-1]
        assert shown_state(record) == "interrupted"
        write_record(home, record.model_copy(update={"flow_run": "0f2b"}))
        assert cancel_flow_run(home, "another") == 0
        assert find_process(entry.job) is not None
        assert cancel_flow_run(home, "0f2b") == 1
        assert find_process(entry.job) is None
        assert read_runs(home)[-1].state == "cancelled"
        assert not cancel_mark(home, record.run).exists()
        assert cancel_flow_run(home, "0f2b") == 0


def test_a_cancelled_run_begins_no_stage(home):
    run = open_run(home)
    assert cancel_run(home, run.record) == (run.id, (), ())
    with pytest.raises(JobError, match=f"the run {run.id} was cancelled"):
        ensure(run, captions_stages.captions(run.recipe, run.store))
    assert run.book.read().entries == ()
    run.close("failed")
    assert read_runs(home)[-1].state == "cancelled"


def test_a_run_of_many_stages_looks_once_for_the_jobs_that_it_ends(home, monkeypatch):
    """At a thousand cells, once for each took minutes."""
    run, swept = open_sweep(home, small(grid={TAU: [0.01 * place for place in range(1, 13)]}))
    with subprocess.Popen(["sleep", "600"]) as process:
        for stage in swept.stages:
            entry = Entry(
                digest=stage.digest, kind=stage.kind.name, stage=stage.name, run=run.id, attempt=1,
                owner="elsewhere/1/1", claimed=now(), job=process_id(process.pid),
            )  # fmt: skip
            assert run.book.claim(entry)
        write_atomically(cancel_mark(home, run.id), "now")
        looks = []
        monkeypatch.setattr("infra.cancel.scan_runs", lambda place: looks.append(place) or scan_runs(place))
        for stage in swept.stages:
            with pytest.raises(JobError, match="was cancelled"):
                decide(run, stage, run.store.begin(stage.digest), set())
    assert len(looks) == 1
    assert {each.state for each in run.book.read().entries} == {JobState.CANCELLED}


def test_what_cannot_be_cancelled_is_said_with_what_can(home):
    with pytest.raises(StoreError, match="nothing has run in this HOME"):
        find_run(home, "tiny")
    run = open_run(home)
    assert find_run(home, "tiny") == find_run(home, run.id) == run.record
    with pytest.raises(StoreError, match=r"no run 'tinny'(.|\n)*there are: tiny"):
        find_run(home, "tinny")
    run.close("completed")
    with pytest.raises(StoreError, match="is completed and has no jobs"):
        find_run(home, "tiny")


def test_of_many_runs_of_a_recipe_the_newest_running_one_is_meant(home):
    recipe = Recipe.model_validate(TINY)
    runs = [new_record(recipe, ()) for _ in range(3)]
    for each in (*runs[:2], runs[2].model_copy(update={"state": "failed"})):
        write_record(home, each)
    assert find_run(home, "tiny") == runs[1]


def test_the_run_of_a_sweep_goes_by_the_sweeps_name_and_not_by_its_recipes(home):
    run, _ = open_sweep(home, small())
    assert find_run(home, "s") == find_run(home, run.id) == run.record
    with pytest.raises(StoreError, match=r"no run 'small'(.|\n)*there are: "):
        find_run(home, "small")
    alone = open_run(home, recipe=run.recipe)
    assert find_run(home, "small") == alone.record
    assert find_run(home, "s") == run.record
