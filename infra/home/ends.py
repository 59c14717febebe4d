"""Runs that are over, perhaps without a word: how what they planned and is not there stands, for the tracker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from infra.executors.executor import failure_of
from infra.executors.observe import find_again, observe
from infra.executors.signs import last_sign
from infra.home.runs import RunRecord, cancel_mark, read_runs, shown_state
from infra.ledger import Attach, Book, Entry, JobState, Ledger, reconcile
from infra.processes import now
from infra.tracking.patient import UNTRACKED
from infra.tracking.tracker import DATA, RunState
from xclr.errors import WeakError
from xclr.pipeline import KINDS
from xclr.stage import STEPS
from xclr.store import MANIFEST, Store

DATA_STEPS = STEPS[: STEPS.index("pretrain")]
WORST_FIRST: tuple[RunState, ...] = ("RUNNING", "FAILED", "KILLED", "FINISHED")  # what the data's run says of several


class Ending(NamedTuple):
    """An attempt as the tracker shows it: on which run, None for what judges a network, in which state, since when."""

    run: str | None
    state: RunState
    ended_ms: int | None


def endings(home: Path, digests: Iterable[str]) -> list[Ending]:
    """How those of the digests stand that were begun and are not there, one for each of the tracker's runs."""
    found = sorted(_endings(home, digests), key=lambda each: WORST_FIRST.index(each.state))
    return list({each.run: each for each in reversed(found)}.values())


def goes_on(ends: Iterable[Ending]) -> bool:
    """True while a job lives."""
    return any(each.state == "RUNNING" for each in ends)


def untold(home: Path, state: Path) -> list[RunRecord]:
    """The runs of this HOME that are over and of which MLflow was not told all, oldest first."""
    marks = {path.name: path for path in (state / UNTRACKED).glob("*")}
    records = read_runs(home) if marks else []
    for name in marks.keys() - {each.run for each in records}:
        marks[name].unlink(missing_ok=True)  # gc has removed the run
    return [each for each in records if each.run in marks and shown_state(each) != "running"]


def is_over(home: Path, record: RunRecord) -> bool:
    """True when no job of a run lives."""
    return not goes_on(endings(home, record.digests))


def _endings(home: Path, digests: Iterable[str]) -> Iterator[Ending]:
    book, store = Book(home), Store(home)
    for digest in digests:
        entry = book.latest(digest)
        if entry is not None and not (store.folder(entry.kind, digest) / MANIFEST).exists():
            yield _ending(home, entry)


def _ending(home: Path, entry: Entry) -> Ending:
    out = Store(home).folder(entry.kind, entry.digest)
    with suppress(OSError):  # the scheduler does not answer
        entry = find_again(entry, out)
    observed = observe(entry, out)
    (action,) = reconcile(Ledger((entry,)), observed, now())
    if isinstance(action, Attach):
        return Ending(_run_of(entry), "RUNNING", None)
    state = entry.state or observed.get(entry.job or "")
    killed = state in {JobState.CANCELLED, JobState.STOPPED} or _was_asked(home, entry, state)
    return Ending(_run_of(entry), "KILLED" if killed else "FAILED", int(last_sign(entry, out).timestamp() * 1000))


def _was_asked(home: Path, entry: Entry, state: JobState | None) -> bool:
    """True for a training that its sweep gave up, and for what a run ends that is being cancelled."""
    if state is JobState.FAILED:
        failure = failure_of(Store(home).folder(entry.kind, entry.digest))
        return failure is not None and failure.error == WeakError.__name__
    return cancel_mark(home, entry.run).exists()


def _run_of(entry: Entry) -> str | None:
    kind = KINDS.get(entry.kind)
    if kind is None or (kind.network is None and kind.step not in DATA_STEPS):
        return None
    return DATA if kind.network is None else entry.digest
