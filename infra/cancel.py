"""Ending a run and its jobs, from any process: `xclr cancel`, a second Ctrl-C, a cancelled Prefect flow run.

HOME/runs/<run>.cancel is written first. The run's own process sees it and begins nothing more, so that no job that is
ended here is submitted again.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from infra.executors.executor import Executor, executor_of
from infra.executors.observe import find_again, observe
from infra.home.runs import RunRecord, cancel_mark, read_runs, scan_runs, shown_state, wanted, write_record
from infra.ledger import Attach, Book, Entry, JobState, Ledger, reconcile
from infra.processes import now
from xclr.errors import JobError, StoreError
from xclr.record import records_named
from xclr.store import Store, write_atomically

WITHIN_S = 30
POLL_S = 0.2


class Cancelled(NamedTuple):
    """What came of cancelling a run."""

    run: str
    ended: tuple[Entry, ...]  # its jobs, all gone
    left: tuple[Entry, ...]  # jobs that other live runs wait for


def cancel_run(home: Path, record: RunRecord) -> Cancelled:
    """Stop a run, end its jobs but for those that other live runs wait for, and wait until they are gone.

    A stage in the run's own process is let finish. Raises JobError when a job outlives WITHIN_S seconds.
    """
    before = _live_jobs(home, record.digests)
    write_atomically(cancel_mark(home, record.run), now().isoformat())
    own, left = _shares(home, record, record.digests)  # the run may have ended some already: it has seen the mark
    ending = tuple(each for each in dict.fromkeys((*before, *own)) if each not in left)
    end_jobs(home, record, frozenset(record.digests))
    deadline = time.monotonic() + WITHIN_S
    while alive := [f"{each.stage} ({_executor(each).call(str(each.job))})" for each in ending if _goes_on(home, each)]:
        if time.monotonic() > deadline:
            remedy = "run xclr cancel on the node of each, and where Slurm's scancel reaches the cluster"
            raise JobError(f"still running after {WITHIN_S} s: {', '.join(alive)}", remedy)
        time.sleep(POLL_S)
    _close_for_the_dead(home, record.run)
    return Cancelled(record.run, ending, left)


def cancel_flow_run(home: Path, flow_run_id: str) -> int:
    """Cancel what runs under a Prefect flow run's id; returns how many jobs were ended."""
    records = [each for each in read_runs(home) if each.flow_run == flow_run_id and _can_be_cancelled(home, each)]
    return sum(len(cancel_run(home, each).ended) for each in records)


def end_jobs(home: Path, record: RunRecord, digests: Collection[str]) -> int:
    """End the jobs of these digests that are the run's alone; returns how many."""
    book, ended = Book(home), 0
    arrays: dict[str, list[Entry]] = {}  # by name; a job of this machine has none
    for entry in _shares(home, record, digests)[0]:
        arrays.setdefault(entry.name or str(entry.job), []).append(entry)
    for entries in arrays.values():
        if _executor(entries[0]).cancel(entries):
            for entry in entries:
                book.close(entry, JobState.CANCELLED)
            ended += len(entries)
    return ended


def find_run(home: Path, name: str) -> RunRecord:
    """The run of that id, or the newest of that recipe or sweep which runs or has jobs; else raises StoreError."""
    named = records_named(home, read_runs(home), name)
    live = [each for each in named if _can_be_cancelled(home, each)]
    if not live:
        newest = named[-1]
        raise StoreError(f"{newest.run} is {shown_state(newest)} and has no jobs", "xclr status shows what is running")
    return next((each for each in reversed(live) if shown_state(each) == "running"), live[-1])


def _can_be_cancelled(home: Path, record: RunRecord) -> bool:
    return record.state == "running" or bool(_live_jobs(home, record.digests))


def _shares(home: Path, record: RunRecord, digests: Collection[str]) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """The live jobs of digests of the run: its own, and those that other live runs wait for."""
    others = wanted(home, (each for each in scan_runs(home).records if each.run != record.run))
    jobs = _live_jobs(home, [each for each in record.digests if each in digests])
    own = tuple(each for each in jobs if each.digest not in others)
    return own, tuple(each for each in jobs if each.digest in others)


def _live_jobs(home: Path, digests: Iterable[str]) -> tuple[Entry, ...]:
    """Newest attempts at digests that have a live job of their own, here or elsewhere."""
    book = Book(home)
    found = (_with_job(home, book.latest(digest)) for digest in digests)
    return tuple(each for each in found if each is not None and _is_live(home, each))


def _with_job(home: Path, entry: Entry | None) -> Entry | None:
    """An attempt, with the job that its claimer could not write down."""
    if entry is None:
        return None
    with suppress(OSError):
        return find_again(entry, Store(home).folder(entry.kind, entry.digest))
    return entry


def _is_live(home: Path, entry: Entry) -> bool:
    if entry.job is None or entry.is_inline:
        return False
    latest = Book(home).latest(entry.digest)
    if latest is not None and (latest.attempt != entry.attempt or latest.state is not None):
        return False
    (action,) = reconcile(Ledger((entry,)), observe(entry, Store(home).folder(entry.kind, entry.digest)), now())
    return isinstance(action, Attach)


def _goes_on(home: Path, entry: Entry) -> bool:
    """True while a job that was ended is still there, whatever the ledger says."""
    return _executor(entry).goes_on(entry, Store(home).folder(entry.kind, entry.digest))


def _executor(entry: Entry) -> Executor:
    return executor_of(str(entry.job))


def _close_for_the_dead(home: Path, run: str) -> None:
    """Write the end of a run whose process is gone; a live one writes its own."""
    record = next((each for each in scan_runs(home).records if each.run == run), None)
    if record is not None and shown_state(record) == "running":
        return
    if record is not None and record.state != "completed":  # Prefect ends the process before it tells us to cancel
        write_record(home, record.model_copy(update={"state": "cancelled", "ended": record.ended or now()}))
    cancel_mark(home, run).unlink(missing_ok=True)
