"""What Slurm says of jobs: a pure parser of squeue and sacct, and one shared look at the queue every few seconds."""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from infra.ledger import JobState
from infra.slurm.look import ask, forget, look
from infra.slurm.reasons import Reason, reason_of
from xclr.environment import setting

SQUEUE = "%i|%T|%V|%M|%L|%S|%N|%r|%j"  # the name last: it may hold anything
SACCT = "JobID,State,Submit,ElapsedRaw,NodeList,JobName"
DISABLED = "accounting storage is disabled"  # as sacct says it
SILENT_FOR_S = 3600.0  # that sacct may fail before what only it could tell counts as not there
ELSEWHERE = "run on the cluster's login node, or --cluster local"
PREFIX = "slurm/"  # of our ids: slurm/4711, slurm/4711+4712 for an array in two pieces, slurm/4711_3 for an element
DEFAULT_MAX_ARRAY = 1001

STATES: Mapping[str, JobState] = {  # of squeue and sacct; man squeue, JOB STATE CODES
    "PENDING": JobState.PENDING,
    "CONFIGURING": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "RESV_DEL_HOLD": JobState.PENDING,
    "SPECIAL_EXIT": JobState.PENDING,
    "RUNNING": JobState.RUNNING,
    "COMPLETING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "COMPLETED": JobState.GONE,  # whether it left a result is not for Slurm to say
    "FAILED": JobState.GONE,
    "CANCELLED": JobState.CANCELLED,
    "REVOKED": JobState.CANCELLED,
    "TIMEOUT": JobState.TIMEOUT,
    "DEADLINE": JobState.TIMEOUT,
    "NODE_FAIL": JobState.NODE_FAIL,
    "BOOT_FAIL": JobState.NODE_FAIL,
    "PREEMPTED": JobState.PREEMPTED,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
}
ORDER = (  # of the elements of an array, what says most about the whole first
    JobState.RUNNING,
    JobState.PENDING,
    JobState.CANCELLED,
    JobState.OUT_OF_MEMORY,
    JobState.TIMEOUT,
    JobState.NODE_FAIL,
    JobState.PREEMPTED,
    JobState.GONE,
)


class SlurmJob(NamedTuple):
    """One job, or one element of an array, as Slurm shows it."""

    job: str  # 4711, or 4711_3
    state: JobState
    raw: str  # Slurm's own word
    name: str
    submitted: datetime | None
    elapsed_s: float
    remaining_s: float | None = None  # of its time limit
    node: str = ""
    reason: str = ""
    starts: datetime | None = None  # of one that waits: as Slurm estimates it

    @property
    def base(self) -> str:
        """The id without the element."""
        return self.job.partition("_")[0]


class Whole(NamedTuple):
    """All elements of a job together."""

    state: JobState
    elements: tuple[SlurmJob, ...]

    @property
    def live(self) -> tuple[SlurmJob, ...]:
        """The elements that wait or run."""
        return tuple(each for each in self.elements if each.state in {JobState.PENDING, JobState.RUNNING})

    @property
    def is_ending(self) -> bool:
        """True when nothing of it will run on: all elements have ended, or are having their processes ended."""
        return all(each.raw == "COMPLETING" for each in self.live)


def parse_squeue(text: str) -> list[SlurmJob]:
    """The lines of `squeue --noheader --array --format SQUEUE` with times in seconds since 1970."""
    found = []
    for line in text.splitlines():
        parts = line.strip().split("|", 8)
        if len(parts) == 9:
            job, raw, submitted, elapsed, left, start, node, reason, name = parts
            state = state_of(raw)
            starts = _time(start) if state is JobState.PENDING else None
            spent_s, left_s = _seconds(elapsed) or 0.0, _seconds(left)
            found.append(SlurmJob(job, state, raw, name, _time(submitted), spent_s, left_s, node, reason, starts))
    return found


def parse_sacct(text: str) -> list[SlurmJob]:
    """The lines of `sacct -X --parsable2 --noheader --format SACCT` with times in seconds since 1970."""
    found = []
    for line in text.splitlines():
        parts = line.strip().split("|", 5)
        if len(parts) == 6 and parts[0]:
            job, raw, submitted, elapsed, node, name = parts
            elapsed_s = float(elapsed) if re.fullmatch("[0-9]+", elapsed) else 0.0
            found.append(SlurmJob(job, state_of(raw), raw, name, _time(submitted), elapsed_s, node=_node(node)))
    return found


def state_of(raw: str) -> JobState:
    """Slurm's word as a state; "CANCELLED by 1000" and "CANCELLED+" are cancelled. An unknown word is UNKNOWN."""
    words = raw.split()
    return STATES.get(words[0].rstrip("+"), JobState.UNKNOWN) if words else JobState.UNKNOWN


def whole(elements: Iterable[SlurmJob]) -> Whole:
    """The state of a job from its elements: running when one runs, waiting when one waits, else how the worst ended."""
    elements = tuple(elements)
    states = {each.state for each in elements}
    return Whole(next((state for state in ORDER if state in states), JobState.UNKNOWN), elements)


def why_waiting(seen: SlurmJob) -> Reason:
    """Why a job waits, in plain words, with Slurm's own, and the remedy where it waits for a person."""
    return reason_of(seen.reason, seen.job) if seen.state is JobState.PENDING else Reason("")


def slurm_ids(job: str) -> tuple[str, ...]:
    """Slurm's ids behind one of ours."""
    return tuple(job.removeprefix(PREFIX).split("+"))


class Queue:
    """The user's jobs, asked for at most every few seconds however many threads and processes want to know."""

    def __init__(self) -> None:
        self.every_s = float(setting("XCLR_SLURM_EVERY_S") or 5)  # between two looks
        self.home: Path | None = None  # whose processes look together
        self.lock = threading.Lock()
        self.looked = -self.every_s
        self.seen: dict[str, list[SlurmJob]] = {}  # by id, and by the id without the element
        self.controller = True  # answered, the last time
        self.accounts = Accounts(self.every_s)

    @property
    def answers(self) -> bool:
        """True unless the controller, or sacct where it is needed, did not, the last time."""
        return self.controller and not self.accounts.is_silent

    def find(self, job: str) -> Whole | None:
        """The elements of a job; None when it is not to be seen; state UNKNOWN when Slurm does not answer."""
        with self.lock:
            self._look()
            if not self.controller:
                return Whole(JobState.UNKNOWN, ())
            try:
                elements = [seen for base in slurm_ids(job) for seen in self._of(base)]
            except OSError:
                return Whole(JobState.UNKNOWN, ())
        return whole(elements) if elements else None

    def named(self, name: str) -> list[str]:
        """Ids of the jobs of that name that Slurm shows; raises OSError when it does not answer."""
        text = ask("squeue", "--noheader", "--states=all", "--me", f"--name={name}", f"--format={SQUEUE}")
        found = {seen.base for seen in parse_squeue(text)} or {seen.base for seen in self.accounts.named(name)}
        return sorted(found, key=int)

    @functools.cached_property
    def array_size(self) -> int:
        """Slurm's MaxArraySize, one above the largest index of an array."""
        try:
            found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
        except OSError:
            return DEFAULT_MAX_ARRAY
        return int(found.group(1)) if found else DEFAULT_MAX_ARRAY

    def forget(self) -> None:
        """Look again at the next question, as after a submission."""
        with self.lock:
            self.looked = -self.every_s
            self.accounts.ended.clear()
            forget(self.home)

    def show(self, jobs: Iterable[SlurmJob]) -> None:
        """Take note of all jobs that there are, as of now."""
        self.seen = {}
        for each in jobs:
            for key in dict.fromkeys((each.job, each.base)):
                self.seen.setdefault(key, []).append(each)
        self.looked = time.monotonic()

    def _look(self) -> None:
        if time.monotonic() - self.looked < self.every_s:
            return
        seen = look(self.home, SQUEUE, self.every_s)
        self.controller = seen.answers
        if seen.answers:
            self.show(parse_squeue(seen.text))
        self.looked = time.monotonic()

    def _of(self, job: str) -> list[SlurmJob]:
        """A job's elements, or the one that the id names, such as 4711_3."""
        return self.seen.get(job) or [
            seen for seen in self.accounts.of(job.partition("_")[0]) if job in {seen.base, seen.job}
        ]


class Accounts:
    """What sacct says of jobs that the queue does not show any more, where there is accounting."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self.there = True  # until Slurm says that there are none
        self.ended: dict[str, tuple[float, list[SlurmJob]]] = {}  # by id: what was said, and when
        self.failed: float | None = None  # since when nothing is said, and ...
        self.tried = -every_s  # ... when it was tried last

    @property
    def is_silent(self) -> bool:
        """True while sacct fails, which it may do for a while."""
        return self.failed is not None and time.monotonic() - self.failed < SILENT_FOR_S

    def of(self, job: str) -> list[SlurmJob]:
        """The elements of a job; raises OSError while sacct fails, for SILENT_FOR_S seconds at most."""
        when, known = self.ended.get(job, (-self.every_s, []))
        if time.monotonic() - when >= self.every_s:
            known = self._ask(f"--jobs={job}")
            self.ended[job] = (time.monotonic(), known)
        return known

    def named(self, name: str) -> list[SlurmJob]:
        """The jobs of a name, of the last day; raises what `of` raises."""
        since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 86400))
        return self._ask(f"--name={name}", f"--starttime={since}")

    def _ask(self, *which: str) -> list[SlurmJob]:
        return parse_sacct(self.said("-X", *which, f"--format={SACCT}"))

    def said(self, *arguments: str) -> str:
        """What sacct prints, nothing where there are no accounts; raises OSError while it fails, for SILENT_FOR_S."""
        if not self.there:
            return ""
        if self.is_silent and time.monotonic() - self.tried < self.every_s:
            raise OSError("sacct fails")
        self.tried = time.monotonic()
        try:
            text = ask("sacct", "--parsable2", "--noheader", *arguments)
        except OSError as error:
            self.there = not (isinstance(error, FileNotFoundError) or DISABLED in str(error))
            self.failed = (self.failed or time.monotonic()) if self.there else None
            if self.is_silent:
                raise
            return ""
        self.failed = None
        return text


def _time(text: str) -> datetime | None:
    return datetime.fromtimestamp(int(text), UTC) if re.fullmatch(r"[0-9]{1,11}", text) else None


def _seconds(text: str) -> float | None:
    """Seconds of [days-][hours:]minutes:seconds; None for UNLIMITED, NOT_SET, INVALID."""
    found = re.fullmatch(r"(?:([0-9]{1,6})-)?(?:([0-9]{1,6}):)?([0-9]{1,6}):([0-9]{1,6})", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(each or 0) for each in found.groups())
    return float(days * 86400 + hours * 3600 + minutes * 60 + seconds)


def _node(text: str) -> str:
    return "" if text.startswith("None") else text


def shown(elements: Sequence[SlurmJob]) -> tuple[int, int, int]:
    """(ended, running, waiting) elements of an array."""
    running = sum(each.state is JobState.RUNNING for each in elements)
    waiting = sum(each.state is JobState.PENDING for each in elements)
    return len(elements) - running - waiting, running, waiting
