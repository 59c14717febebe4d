"""The ledger of jobs: who claimed which digest, which job makes it, how that ended.

HOME/ledger/<digest>/<attempt>.json. An attempt is claimed by creating its file (O_EXCL), which one process can do
once, before the job is submitted; the job's id is written after. A job of Slurm bears a name that was drawn with the
claim, so that it is found when its submitter died in between, and is not taken for another that got its number after a
crash of Slurm. `reconcile` decides what follows from what is observed and touches nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from infra.processes import JobId, now
from xclr.artifact import Digest, Usage
from xclr.errors import StoreError
from xclr.recipe import RetriesConfig
from xclr.store import only_writer, write_atomically

USAGE = "usage.json"
ATTEMPT = re.compile(r"\d+\.json")
UNSEEN_GRACE = timedelta(minutes=10)  # how long a claim from another machine may stay without a job


class JobState(StrEnum):
    """What is observed of a job."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"  # it says why
    GONE = "gone"  # ended without a word
    CANCELLED = "cancelled"  # ended by a person
    STOPPED = "stopped"  # asked to stop, saved, and not requeued
    PREEMPTED = "preempted"
    TIMEOUT = "timeout"
    NODE_FAIL = "node_fail"
    NODE_FAULT = "node_fault"  # as the job itself says
    OUT_OF_MEMORY = "out_of_memory"
    UNSEEN = "unseen"  # Slurm answers and does not show it
    UNKNOWN = "unknown"  # Slurm does not answer


OF_NODES = (JobState.NODE_FAIL, JobState.NODE_FAULT)
LIVE = frozenset({JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN})
ABSENT = frozenset({JobState.UNSEEN, JobState.PREEMPTED, JobState.NODE_FAIL})  # Slurm may yet requeue it


class Entry(BaseModel):
    """One attempt at one digest."""

    model_config = ConfigDict(frozen=True)
    digest: str
    kind: str
    stage: str
    run: str
    attempt: int
    owner: JobId  # the process that claimed it
    claimed: datetime
    name: str = ""  # of the job in Slurm, drawn with the claim; none for jobs of this machine
    element: int | None = None  # of the array of that name, whose other elements make other digests
    job: JobId | None = None  # what makes it
    log: str | None = None
    state: JobState | None = None  # the end, once known
    ended: datetime | None = None
    unseen_since: datetime | None = None  # Slurm has not shown the job since
    stuck_after_s: int | None = None  # without progress it is named
    before: tuple[JobState, ...] = ()  # how the attempts ended that this one follows by itself

    @property
    def is_inline(self) -> bool:
        """True for a stage in the orchestrator's own process."""
        return self.job == self.owner


RETRIES = RetriesConfig()


@dataclass(frozen=True)
class Ledger:
    """The latest attempt at each digest, as read, and how often a job may be tried again."""

    entries: tuple[Entry, ...]
    retries: RetriesConfig = RETRIES


@dataclass(frozen=True)
class Submit:
    """Nobody makes this digest: claim the next attempt and submit it."""

    digest: str
    attempt: int
    reason: str
    before: tuple[JobState, ...] = ()


@dataclass(frozen=True)
class Attach:
    """A job makes it: wait for it."""

    digest: str
    job: JobId | None


@dataclass(frozen=True)
class Adopt:
    """The job is done: commit its output."""

    digest: str


@dataclass(frozen=True)
class GiveUp:
    """It is not tried again by itself: the job says that it cannot be done, or it ended too often in other ways."""

    digest: str
    attempt: int
    reason: str = "it failed"


Action = Submit | Attach | Adopt | GiveUp


def reconcile(ledger: Ledger, observed: Mapping[JobId, JobState], now: datetime) -> tuple[Action, ...]:
    """What to do about each digest, from what is written and what is observed of jobs and claiming processes."""
    return tuple(_decide(entry, observed, now, ledger.retries) for entry in ledger.entries)


def _decide(entry: Entry, observed: Mapping[JobId, JobState], now: datetime, retries: RetriesConfig) -> Action:
    if entry.state is None and entry.job is None:
        return _decide_claim(entry, observed.get(entry.owner), now)
    state = entry.state or observed.get(entry.job or "", JobState.GONE)
    patience = timedelta(seconds=retries.lost_after_s)
    match state:
        case JobState.PENDING | JobState.RUNNING | JobState.UNKNOWN:
            return Attach(entry.digest, entry.job)
        case _ if entry.state is None and state in ABSENT and now - (entry.unseen_since or now) < patience:
            return Attach(entry.digest, entry.job)
        case JobState.COMPLETED:
            return Adopt(entry.digest)
        case JobState.FAILED | JobState.OUT_OF_MEMORY if state is JobState.OUT_OF_MEMORY or not retries.failures:
            return GiveUp(entry.digest, entry.attempt, WHY[state])
        case _:
            return _again(entry, state, retries)


def _decide_claim(entry: Entry, owner: JobState | None, now: datetime) -> Action:
    if owner is JobState.RUNNING or (owner is None and now - entry.claimed < UNSEEN_GRACE):
        return Attach(entry.digest, None)
    return Submit(entry.digest, entry.attempt + 1, "its claimer ended before submitting", entry.before)


WHY: Mapping[JobState, str] = {
    JobState.FAILED: "it failed",
    JobState.OUT_OF_MEMORY: "it needed more memory than it has",
    JobState.GONE: "its job ended without a result",
    JobState.UNSEEN: "its job is no longer in Slurm's queue",
    JobState.CANCELLED: "its job was cancelled",
    JobState.STOPPED: "its job was stopped",
    JobState.PREEMPTED: "its job was preempted",
    JobState.TIMEOUT: "its job reached its time limit",
    JobState.NODE_FAIL: "its node was lost",
    JobState.NODE_FAULT: "its node has a fault",
}


def _again(entry: Entry, state: JobState, retries: RetriesConfig) -> Submit | GiveUp:
    """Another attempt, unless so many ended in this way already."""
    lost = (JobState.GONE, JobState.UNSEEN)
    same = next((several for several in (lost, OF_NODES) if state in several), (state,))
    limits = {
        JobState.TIMEOUT: retries.timeouts,
        **dict.fromkeys(OF_NODES, retries.node_failures),
        JobState.FAILED: retries.failures,
        **dict.fromkeys(lost, retries.crashes),
    }
    most = limits.get(state)
    times = sum(each in same for each in entry.before)
    if most is not None and times >= most:
        return GiveUp(entry.digest, entry.attempt, f"{WHY[state]}, {times + 1} times in all")
    return Submit(entry.digest, entry.attempt + 1, WHY[state], (*entry.before, state))


class Book:
    """The ledger on disk."""

    def __init__(self, home: Path) -> None:
        self.root = home / "ledger"

    def latest(self, digest: Digest | str) -> Entry | None:
        """The newest attempt at a digest."""
        folder = os.path.join(self.root, digest)  # noqa: PTH118 - pathlib takes 2 of 3 s of a status with 5,000 digests
        with suppress(FileNotFoundError, NotADirectoryError):  # not there, or removed meanwhile
            last = max((each for each in os.listdir(folder) if ATTEMPT.fullmatch(each)), default=None)  # noqa: PTH208
            return _read(Path(folder, last)) if last else None
        return None

    def read(self) -> Ledger:
        """The newest attempt at every digest."""
        digests = sorted(path.name for path in self.root.glob("*")) if self.root.exists() else []
        return Ledger(tuple(entry for digest in digests if (entry := self.latest(digest)) is not None))

    def attempts(self, digest: Digest | str) -> tuple[Entry, ...]:
        """Every attempt at a digest, oldest first."""
        return tuple(_read(path) for path in sorted((self.root / digest).glob("[0-9]*.json")))

    def usage(self, digest: Digest | str) -> Usage | None:
        """What the jobs of a digest used, once it is known; a file that was cut says nothing, and is written anew."""
        path = os.path.join(self.root, digest, USAGE)  # noqa: PTH118 - as above
        with suppress(FileNotFoundError, ValueError), open(path, "rb") as stream:  # noqa: PTH123
            return Usage.model_validate_json(stream.read())
        return None

    def write_usage(self, digest: Digest | str, usage: Usage) -> None:
        """Keep what the jobs of a digest used."""
        write_atomically(self.root / digest / USAGE, usage.model_dump_json())

    def claim(self, entry: Entry) -> bool:
        """Create the attempt's file; False when another process was first."""
        path = self._path(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{id(entry)}")
        write_atomically(draft, entry.model_dump_json())
        try:
            os.link(draft, path)  # exclusive like O_EXCL, and never seen half-written
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links, such as exFAT
            with only_writer(path.parent):
                if path.exists():
                    return False
                draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        return True

    def update(self, entry: Entry) -> None:
        """Write what became of an attempt."""
        write_atomically(self._path(entry), entry.model_dump_json())

    def close(self, entry: Entry, state: JobState, ended: datetime | None = None) -> None:
        """Write how and when an attempt ended, by default now."""
        self.update(entry.model_copy(update={"state": state, "ended": ended or now()}))

    def _path(self, entry: Entry) -> Path:
        return self.root / entry.digest / f"{entry.attempt:04d}.json"


def _read(path: Path) -> Entry:
    try:
        return Entry.model_validate_json(path.read_text())
    except ValueError as error:
        raise StoreError(f"{path} cannot be read", "delete the file; the stage is then made again") from error
