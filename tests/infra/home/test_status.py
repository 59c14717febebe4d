"""status and logs: facts of runs and jobs, as they are read while runs write."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import timedelta

import pytest
from rich.console import Console

from flows.cli.status import _status_text
from infra.home.runs import new_record, write_record
from infra.home.status import LATEST, find_job, status, view
from infra.ledger import Book, Entry, JobState
from infra.processes import now, process_id, this_process
from infra.progress import Advance
from tests.kit.finished import fail, finish_sweep
from tests.kit.recipes import TINY
from tests.kit.sweeps import TAU, small
from xclr.artifact import Usage
from xclr.errors import DataError, StoreError
from xclr.job import PROGRESS, record_failure
from xclr.recipe import Recipe
from xclr.record import record_path
from xclr.store import MANIFEST, Store
from xclr.sweep.layout import Cell, Ref, layout
from xclr.training.watch import NOTICES

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
    (out / NOTICES).write_text("nothing is learned; lower it\nall is one; lower it")
    seen = view(home)
    (line,) = status(seen).jobs
    assert (line.run, line.stage, line.job_id, line.state) == (record.run, "pretrain a", job, JobState.RUNNING)
    assert line.node == job.split("/")[0]
    assert line.elapsed_s >= 600
    assert (line.reason, line.log) == ("nothing is learned; lower it. all is one; lower it", "/logs/a")
    assert seen.jobs[0].progress == Advance(3, 8)


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


def test_an_element_is_found_by_its_own_id_before_the_array_of_that_number(home):
    record = run(home, "a", "b", "c")
    array, _ = attempt(home, record, "a", job="slurm/4711", state=JobState.COMPLETED)
    assert find_job(home, "4711_3").entry == find_job(home, "4711").entry == array
    element, _ = attempt(home, record, "b", job="slurm/4711_3", element=3, state=JobState.COMPLETED)
    attempt(home, record, "c", job="slurm/4711_4", element=4, state=JobState.COMPLETED)
    assert find_job(home, "4711_3").entry == find_job(home, "slurm/4711_3").entry == element
    assert find_job(home, "4711_5").entry == array
    with pytest.raises(StoreError, match="no job '4712_3'"):
        find_job(home, "4712_3")


@pytest.mark.slow
def test_a_sweep_tells_how_its_cells_and_levels_stand_and_why_one_failed(home):
    sweep = small()
    _, bad = layout(sweep, Store(home)).cells
    record = finish_sweep(home, sweep, {bad.training.digest})
    fail(home, record, bad.training, "the gradient is not finite")
    (line,) = status(view(home)).sweeps
    assert (line.run, line.sweep, line.state, line.cells) == (record.run, "s", "completed", 2)
    assert line.by_state == {"done": 1, "failed": 1}
    (failed,) = line.failed
    assert (failed.cell, failed.level, failed.job_id) == ("xclr target_temperature=0.2 seed 0", "pretrain", "7_1")
    assert failed.reason == "the gradient is not finite"
    levels = {each.level: (each.done, each.failed, each.to_come) for each in line.levels}
    assert levels == {"pretrain": (1, 1, 0), "features": (1, 0, 1), "suite linear": (1, 0, 1)}
    assert {each.running + each.waiting for each in line.levels} == {0}
    shown = rendered(home)
    assert "sweep s: 1 of 2 cells done, 1 failed" in shown
    assert "failed: xclr target_temperature=0.2 seed 0, pretrain (7_1): the gradient is not finite" in shown
    assert "xclr retry s" in shown


def rendered(home, *, everything: bool = False) -> str:
    """The status on a terminal of 100 columns."""
    console = Console(width=100, file=io.StringIO())
    console.print(_status_text(home, view(home, everything=everything), everything))
    return console.file.getvalue()


def done(home, cell: Cell) -> None:
    """Make it look as if all stages of a cell were made."""
    for ref in cell.stages:
        out = home / "artifacts" / ref.kind / ref.digest
        out.mkdir(parents=True, exist_ok=True)
        (out / MANIFEST).touch()


def dozen(home, failed: int = 0, reason: str = "the gradient is not finite"):
    """A run of a sweep of 12 cells: the first is done, the last `failed` failed, nobody made the others yet."""
    sweep = small(name="dozen", grid={TAU: [round(0.05 * number, 2) for number in range(1, 13)]})
    swept = layout(sweep, Store(home))
    record = finish_sweep(home, sweep, {stage.digest for stage in swept.stages})
    done(home, record.cells[0])
    for number, cell in enumerate(record.cells[len(record.cells) - failed :]):
        fail(home, record, cell.training, reason, f"slurm/4711_{number}")
    return record


def fits(shown: str) -> bool:
    lines = shown.splitlines()
    return len(lines) <= 24 and max(map(len, lines)) <= 100


@pytest.mark.parametrize("failed", [0, 2, 11])
@pytest.mark.slow
def test_a_sweep_of_a_dozen_cells_fits_a_screen(failed, home):
    dozen(home, failed)
    shown = rendered(home)
    assert fits(shown), shown
    assert "sweep dozen: 1 of 12 cells done" in shown
    assert shown.count("gradient") == min(failed, status(view(home)).sweeps[0].by_state.get("failed", 0), 4)
    assert ("... and 7 more" in shown) == (failed == 11)
    assert (f"{11 - failed} to come" in shown) == (failed < 11)


@pytest.mark.slow
def test_a_long_reason_does_not_push_a_sweep_off_the_screen(home):
    dozen(home, 8, "CUDA error: an illegal memory access was encountered; kernel errors might be told later " * 4)
    assert fits(rendered(home)), rendered(home)


@pytest.mark.slow
def test_a_running_sweep_is_told_by_its_jobs_and_shares_each_stage_once(home, job):
    record = dozen(home)
    cells = record.cells[1:]
    write_record(home, record.model_copy(update={"state": "running"}))
    for cell, state in ((cells[0], None), (cells[1], JobState.CANCELLED)):
        ref = cell.training
        entry = Entry(
            digest=ref.digest, kind=ref.kind, stage=ref.name, run=record.run, attempt=1, owner=job, claimed=now(),
            job=job, state=state,
        )  # fmt: skip
        assert Book(home).claim(entry)
    (line,) = status(view(home)).sweeps
    assert line.by_state == {"done": 1, "to come": 9, "running": 1, "failed": 1}
    assert [(each.cell, each.reason) for each in line.failed] == [(cells[1].title, "its job was cancelled")]
    assert f"pretrain {cells[0].title}" in " ".join(rendered(home).replace("│", " ").split())


def begin(home, record, ref, job, **fields) -> None:
    """An attempt of a run at a stage, and how far it is."""
    entry = Entry(
        digest=ref.digest, kind=ref.kind, stage=ref.name, run=record.run, attempt=1, owner="host/1/1",
        claimed=STARTED, job=job,
    ).model_copy(update=fields)  # fmt: skip
    assert Book(home).claim(entry)
    out = home / "artifacts" / ref.kind / ref.digest
    out.mkdir(parents=True)
    (out / PROGRESS).write_text(json.dumps({"done": 1200, "total": 8000, "per_s": 1.5}))


@pytest.mark.parametrize("minutes", [0, 63, 971])
@pytest.mark.slow
def test_a_sweep_that_trains_three_of_a_dozen_cells_fits_a_screen(minutes, home, job):
    record = dozen(home).model_copy(update={"run": "sweep-dozen-20261126-120000-1a2b", "state": "running"})
    record_path(home, "dozen-1").unlink()
    write_record(home, record)
    for cell in record.cells[1:4]:
        begin(home, record, cell.training, job, claimed=now() - timedelta(minutes=minutes))
    shown = rendered(home)
    assert fits(shown), shown
    assert "sweep dozen: 1 of 12 cells done, 8 to come, 3 running" in shown
    assert shown.count("1,200 of 8,000") == 3


@pytest.mark.slow
def test_of_very_many_jobs_of_a_sweep_the_first_are_shown_or_all(home, job):
    record = dozen(home)
    for cell in record.cells[1:9]:
        begin(home, record, cell.training, job)
    begin(home, record, record.cells[9].training, job, state=JobState.CANCELLED)
    shown, everything = rendered(home), rendered(home, everything=True)
    assert "... and 2 more: xclr status --all" in shown
    assert (shown.count("1,200 of"), everything.count("1,200 of")) == (6, 8)
    assert "│ cancelled" in everything and "│ cancelled" not in shown


@pytest.mark.slow
def test_a_stage_that_cells_share_is_shown_until_it_is_done(home):
    record = dozen(home)
    for letter, state in (("e", JobState.NODE_FAIL), ("f", JobState.COMPLETED)):
        ref = Ref(level="images", kind="images", digest=letter * 32, name=f"images {letter}")
        begin(home, record, ref, "slurm/9", state=state)
    shown = rendered(home)
    assert "node was lost" in shown and "images e" in shown and "images f" not in shown


def test_hours_of_a_training_that_cells_share_count_once(home):
    sweep = small(grid={"evaluate.bootstrap": [100, 200]}, max_gpu_hours=9)
    swept = layout(sweep, Store(home))
    record = finish_sweep(home, sweep, {stage.digest for stage in swept.stages})
    (training,) = {cell.training.digest for cell in record.cells}
    Book(home).root.joinpath(training).mkdir(parents=True)
    Book(home).write_usage(training, Usage(gpu_hours=2.5, cpu_hours=1, cpu_efficiency=None, jobs=1))
    (line,) = status(view(home)).sweeps
    assert len(record.cells) == 2
    assert (line.gpu_hours, line.max_gpu_hours) == (2.5, 9)
    assert "; 2.50 of at most 9 GPU-hours" in rendered(home)


@pytest.mark.slow
def test_of_several_runs_of_a_sweep_the_newest_counts(home):
    record = dozen(home)
    for number in (2, 3):
        write_record(home, record.model_copy(update={"run": f"dozen-{number}", "started": now()}))
    assert [each.run for each in status(view(home)).sweeps] == ["dozen-3"]
