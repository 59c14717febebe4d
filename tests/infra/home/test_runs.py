"""Run records: read back as written, interrupted when their process is gone, left out when unreadable."""

from __future__ import annotations

import logging
import subprocess
import sys

from infra.home.runs import (
    cancel_mark,
    new_record,
    read_runs,
    run_of_this_process,
    scan_runs,
    shown_state,
    wanted,
    write_record,
)
from infra.processes import process_id
from tests.kit.recipes import TINY
from xclr.recipe import Recipe
from xclr.record import record_path

RECIPE = Recipe.model_validate(TINY)


def of_a_dead_process(record):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = process_id(process.pid)
    process.kill()
    process.wait()
    return record.model_copy(update={"process": name})


def test_records_come_back_as_written_oldest_first(tmp_path):
    records = [new_record(RECIPE, ("a" * 32,), "flow") for _ in range(3)]
    for each in reversed(records):
        write_record(tmp_path, each)
    assert read_runs(tmp_path) == records
    assert len({each.run for each in records}) == 3
    assert read_runs(tmp_path / "nowhere") == []


def test_a_running_record_without_its_process_was_interrupted():
    record = new_record(RECIPE, ())
    assert shown_state(record) == "running"
    dead = of_a_dead_process(record)
    assert shown_state(dead) == "interrupted"
    assert shown_state(dead.model_copy(update={"state": "completed"})) == "completed"
    assert shown_state(dead.model_copy(update={"process": "elsewhere/1/1"})) == "running"


def test_a_process_knows_its_own_run_among_those_of_others(tmp_path):
    first, own, other = (new_record(RECIPE, ()) for _ in range(3))
    write_record(tmp_path, other.model_copy(update={"process": "elsewhere/1/1"}))
    assert run_of_this_process(tmp_path) is None, "it opened none, whatever others did"
    for each in (first, own):
        write_record(tmp_path, each)
    assert run_of_this_process(tmp_path) == own


def test_a_record_of_another_version_is_told_and_left_out(tmp_path, caplog):
    record = new_record(RECIPE, ())
    write_record(tmp_path, record)
    old = record_path(tmp_path, "old")
    old.write_text('{"run": "old", "state": "completed"}')
    with caplog.at_level(logging.WARNING):
        assert read_runs(tmp_path) == [record]
    assert str(old) in caplog.text
    (fault,) = scan_runs(tmp_path).faults
    assert f"delete {old}" in fault.remedy


def test_only_live_runs_that_are_not_being_cancelled_want_anything(tmp_path):
    live, cancelled, dead, over = (new_record(RECIPE, (letter * 32,)) for letter in "abcd")
    dead = of_a_dead_process(dead)
    over = over.model_copy(update={"state": "completed"})
    cancel_mark(tmp_path, cancelled.run).parent.mkdir()
    cancel_mark(tmp_path, cancelled.run).touch()
    assert wanted(tmp_path, (live, cancelled, dead, over)) == {"a" * 32}
