"""What runs and what ran: the facts that `xclr status` and `xclr logs` print, read from HOME while runs write it."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from infra.executors.executor import Executor, Sight, executor_of, failure_of
from infra.executors.observe import observe
from infra.executors.signs import last_sign
from infra.home.runs import RunRecord, Shown, read_runs, shown_state
from infra.home.sweeps import cell_lines
from infra.ledger import LIVE, WHY, Book, Entry, JobState
from infra.processes import now
from infra.progress import Advance, ago, read_progress
from infra.watchdog import stuck_for
from xclr.errors import StoreError
from xclr.store import MANIFEST, Store
from xclr.sweep.cells import CellLine, CellState, counts
from xclr.training.watch import read_notices

LATEST = 5  # ended runs that are shown beside the running ones


class RunLine(BaseModel):
    """One run, as printed; `reason` says why it ended before it had jobs."""

    model_config = ConfigDict(frozen=True)
    run: str
    recipe: str
    state: Shown
    started: datetime
    reason: str


class JobLine(BaseModel):
    """One job, as printed; `run` is the one that submitted it, `log` None where the stage has no process of its own.

    `remaining_s` is of its time limit, `array` says how many elements ended, run and wait, `starts` is when a waiting
    one is expected to begin.
    """

    model_config = ConfigDict(frozen=True)
    run: str
    stage: str
    job_id: str
    state: JobState
    node: str
    elapsed_s: float
    reason: str
    log: str | None
    remaining_s: float | None
    array: str | None
    progress: Advance | None
    starts: datetime | None


class LevelLine(BaseModel):
    """How the stages of a sweep's cells stand that do the same."""

    model_config = ConfigDict(frozen=True)
    level: str
    done: int
    running: int
    waiting: int
    failed: int
    stopped: int
    to_come: int


class FailedCell(BaseModel):
    """A cell that could not be made, and why."""

    model_config = ConfigDict(frozen=True)
    cell: str
    level: str
    reason: str
    job_id: str


class SweepLine(BaseModel):
    """How a sweep stands; `gpu_hours` are those its jobs have used, None where nobody counted."""

    model_config = ConfigDict(frozen=True)
    run: str
    sweep: str
    state: Shown
    cells: int
    by_state: dict[str, int]
    levels: tuple[LevelLine, ...]
    failed: tuple[FailedCell, ...]
    gpu_hours: float | None
    max_gpu_hours: float | None


class Status(BaseModel):
    """What `xclr status --json` prints."""

    model_config = ConfigDict(frozen=True)
    runs: tuple[RunLine, ...]
    jobs: tuple[JobLine, ...]
    sweeps: tuple[SweepLine, ...] = ()


class Job(NamedTuple):
    """An attempt that has a job, and how it stands."""

    entry: Entry
    out: Path
    state: JobState
    seen: Sight | None = None  # as its scheduler shows it

    @property
    def executor(self) -> Executor:
        """Whose job it is."""
        return executor_of(str(self.entry.job))

    @property
    def number(self) -> str:
        """The scheduler's number, or the process's."""
        return "+".join(self.executor.ids(str(self.entry.job)))

    @property
    def progress(self) -> Advance | None:
        """How far it is, while it runs and says so."""
        return read_progress(self.out) if self.state in LIVE else None


class Overview(NamedTuple):
    """Runs and their jobs, oldest first; sweeps by the newest run of each."""

    runs: tuple[RunRecord, ...]
    jobs: tuple[Job, ...]
    sweeps: tuple[SweepLine, ...] = ()


def view(home: Path, *, everything: bool = False) -> Overview:
    """The running runs and the last ended ones, or all, with the jobs that they submitted or wait for.

    Stages in a run's own process are among the jobs while they run, and when they failed.
    """
    records = read_runs(home)
    running = {each.run for each in records if shown_state(each) == "running"}
    latest = {each.run for each in [each for each in records if each.run not in running][-LATEST:]}
    shown = tuple(each for each in records if everything or each.run in running | latest)
    names = {each.run for each in shown}
    awaited = {digest for each in shown if each.run in running for digest in each.digests}
    found = [
        job
        for job in jobs(home)
        if everything or job.entry.run in names or (job.state in LIVE and job.entry.digest in awaited)
    ]
    worth = [job for job in found if not job.entry.is_inline or job.state in {JobState.RUNNING, JobState.FAILED}]
    newest = {each.sweep.name: each for each in shown if each.sweep is not None and not each.reason}
    sweeps = tuple(_sweep_line(home, each) for each in newest.values())
    return Overview(shown, tuple(sorted(worth, key=lambda job: job.entry.claimed)), sweeps)


def _sweep_line(home: Path, record: RunRecord) -> SweepLine:
    assert record.sweep is not None
    lines = cell_lines(home, record)
    digests = dict.fromkeys(ref.digest for cell in record.cells for ref in cell.stages)  # cells may share a stage
    usages = [usage for digest in digests if (usage := Book(home).usage(digest)) is not None]
    return SweepLine(
        run=record.run,
        sweep=record.sweep.name,
        state=shown_state(record),
        cells=len(lines),
        by_state={str(state): number for state, number in counts(lines).items()},
        levels=tuple(_level_lines(lines)),
        failed=tuple(
            FailedCell(cell=each.cell.title, level=each.level, reason=each.reason, job_id=each.job)
            for each in lines
            if each.state == "failed"
        ),
        gpu_hours=sum(each.gpu_hours for each in usages) if usages else None,
        max_gpu_hours=record.sweep.max_gpu_hours,
    )


def _level_lines(lines: Sequence[CellLine]) -> Iterator[LevelLine]:
    states: dict[str, dict[str, CellState]] = {}  # by level and digest: cells may share a stage
    for line in lines:
        for ref, standing in zip(line.cell.stages, line.standings, strict=True):
            states.setdefault(ref.level, {})[ref.digest] = standing.state
    for level, found in states.items():
        number = Counter(found.values())
        yield LevelLine(
            level=level, done=number["done"], running=number["running"], waiting=number["waiting"],
            failed=number["failed"], stopped=number["stopped"], to_come=number["to come"],
        )  # fmt: skip


def jobs(home: Path) -> list[Job]:
    """The newest attempt at every digest that has a job."""
    entries = [entry for entry in Book(home).read().entries if entry.job is not None]
    outs = [Store(home).folder(entry.kind, entry.digest) for entry in entries]
    return [job_of(entry, out) for entry, out in zip(entries, outs, strict=True)]


def job_of(entry: Entry, out: Path) -> Job:
    """An attempt's job as it stands."""
    return Job(entry, out, _state(entry, out), executor_of(str(entry.job)).look(entry))


def status(seen: Overview) -> Status:
    """The facts of a view."""
    runs = (
        RunLine(
            run=each.run, recipe=each.recipe.name, state=shown_state(each), started=each.started, reason=each.reason
        )
        for each in seen.runs
    )
    return Status(runs=tuple(runs), jobs=tuple(map(_line, seen.jobs)), sweeps=seen.sweeps)


def find_job(home: Path, name: str) -> Job:
    """The newest job of that id (or its process number), stage or digest prefix; raises StoreError with near names.

    An id such as 4711_3 is that of an array's element: a job of its own, or one of the job 4711.
    """
    known = sorted(jobs(home), key=lambda job: job.entry.claimed)
    exact = [job for job in known if name in {job.entry.job, job.number, job.entry.stage}]
    if not exact and (element := re.fullmatch(r"(\d+)_\d+", name)):
        exact = [job for job in known if element.group(1) in job.number.split("+")]
    prefixed = [job for job in known if len(name) >= 4 and job.entry.digest.startswith(name)]
    if found := exact or prefixed:
        return found[-1]
    names = {job.entry.stage for job in known} | {str(job.entry.job) for job in known}
    near = difflib.get_close_matches(name, names, n=3) or [job.entry.stage for job in known[-3:]]
    remedy = "there are: " + ", ".join(near) if near else "nothing has run in this HOME; xclr run emoji"
    raise StoreError(f"no job {name!r} in {home}", remedy)


def _state(entry: Entry, out: Path) -> JobState:
    if entry.state is not None:
        return entry.state
    if (out / MANIFEST).exists():
        return JobState.COMPLETED
    return observe(entry, out)[str(entry.job)]


def _line(job: Job) -> JobLine:
    entry, seen = job.entry, job.seen or Sight()
    return JobLine(
        run=entry.run,
        stage=entry.stage,
        job_id=str(entry.job) if job.executor.is_here else job.number,
        state=job.state,
        node=seen.node,
        elapsed_s=_elapsed_s(job) if seen.elapsed_s is None else seen.elapsed_s,
        remaining_s=seen.remaining_s,
        array=seen.array,
        progress=job.progress,
        reason=_reason(job) or _notices(job) or _silence(job),
        log=entry.log,
        starts=seen.starts if job.state is JobState.PENDING else None,
    )


def _notices(job: Job) -> str:
    """What a running training says of itself: that it does not learn."""
    return read_notices(job.out).replace("\n", ". ") if job.state in LIVE else ""


def _silence(job: Job) -> str:
    """That a running job makes no progress."""
    silent = stuck_for(job.entry, job.out, job.seen or Sight()) if job.state is JobState.RUNNING else None
    return "" if silent is None else f"no progress for {ago(silent)}"


def _elapsed_s(job: Job) -> float:
    until = now() if job.state in LIVE else last_sign(job.entry, job.out)
    return round((until - job.entry.claimed).total_seconds(), 1)


def _reason(job: Job) -> str:
    match job.state:
        case JobState.FAILED:
            failure = failure_of(job.out)
            return failure.message if failure else ""
        case JobState.PENDING if job.seen is not None:
            return " -> ".join(filter(None, (job.seen.reason, job.seen.remedy)))
        case JobState.UNKNOWN:
            return f"{job.executor.title} does not answer"
        case JobState.UNSEEN:
            return f"not in {job.executor.title}'s queue; it is lost if that lasts"
        case JobState.PENDING | JobState.RUNNING | JobState.COMPLETED | JobState.CANCELLED:
            return ""
        case _:
            return WHY[job.state].removeprefix("its job ")
