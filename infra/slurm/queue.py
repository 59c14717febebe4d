"""What Slurm says of jobs: a pure parser of squeue and sacct, and one shared look at the queue every few seconds."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from infra.ledger import JobState
from xclr.environment import setting

SQUEUE = "%i|%T|%V|%M|%L|%N|%r|%j"  # the name last: it may hold anything
SACCT = "JobID,State,Submit,ElapsedRaw,NodeList,JobName"
ANSWERS_WITHIN_S = 20
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
REASONS: Mapping[str, str] = {  # why a job waits, for people; man squeue, JOB REASON CODES
    "None": "about to be looked at by the scheduler",
    "Priority": "jobs of higher priority come first",
    "Resources": "waits for free nodes, GPUs or memory",
    "Dependency": "waits for another job to end",
    "DependencyNeverSatisfied": "waits for a job that failed: cancel it",
    "BeginTime": "its earliest start has not come; a requeued job waits a little",
    "JobHeldUser": "held: scontrol release lets it go",
    "JobHeldAdmin": "held by an administrator",
    "JobArrayTaskLimit": "as many elements of the array run as may at once",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition takes no jobs",
    "PartitionNodeLimit": "asks for more nodes than its partition has",
    "PartitionTimeLimit": "its time limit is above its partition's",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved",
    "Reservation": "waits for its reservation",
    "Licenses": "waits for a licence",
    "BadConstraints": "no node has what it asks for",
    "InvalidAccount": "its account is not valid",
    "InvalidQOS": "its QOS is not valid",
    "AssocGrpGRES": "the account's GPUs are all in use",
    "AssocGrpGRESMinutes": "the account's GPU time is used up",
    "AssocMaxJobsLimit": "the account runs as many jobs as it may",
    "QOSMaxJobsPerUserLimit": "you run as many jobs as this QOS allows",
    "QOSMaxGRESPerUser": "you use as many GPUs as this QOS allows",
    "QOSGrpGRES": "the QOS's GPUs are all in use",
}


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
        parts = line.strip().split("|", 7)
        if len(parts) == 8:
            job, raw, submitted, elapsed, left, node, reason, name = parts
            remaining = _seconds(left)
            found.append(
                SlurmJob(
                    job, state_of(raw), raw, name, _time(submitted), _seconds(elapsed) or 0.0, remaining, node, reason
                )
            )
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


def plain_reason(seen: SlurmJob) -> str:
    """Why a job waits, in plain words, with Slurm's own where there are none."""
    if seen.state is not JobState.PENDING:
        return ""
    word = seen.reason.strip("()").partition(",")[0]
    return f"{REASONS[word]} ({word})" if word in REASONS else word


def slurm_ids(job: str) -> tuple[str, ...]:
    """Slurm's ids behind one of ours."""
    return tuple(job.removeprefix(PREFIX).split("+"))


class Queue:
    """The user's jobs, asked for at most every few seconds however many threads want to know."""

    def __init__(self) -> None:
        self.every_s = float(setting("XCLR_SLURM_EVERY_S") or 5)  # between two looks
        self.lock = threading.Lock()
        self.looked = -self.every_s
        self.seen: list[SlurmJob] = []
        self.answers = True  # the controller did, the last time
        self.accounts = True  # sacct does
        self.ended: dict[str, tuple[float, list[SlurmJob]]] = {}  # by id: what sacct said, and when

    def find(self, job: str) -> Whole | None:
        """The elements of a job; None when it is not to be seen; state UNKNOWN when Slurm does not answer."""
        with self.lock:
            self._look()
            if not self.answers:
                return Whole(JobState.UNKNOWN, ())
            elements = [seen for base in slurm_ids(job) for seen in self._of(base)]
        return whole(elements) if elements else None

    def named(self, name: str) -> list[str]:
        """Ids of the jobs of that name that Slurm shows; raises OSError when it does not answer."""
        text = ask("squeue", "--noheader", "--states=all", "--me", f"--name={name}", f"--format={SQUEUE}")
        found = {seen.base for seen in parse_squeue(text)}
        if not found and self.accounts:
            since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 86400))
            try:
                text = ask(
                    "sacct", "-X", "--parsable2", "--noheader", f"--name={name}", f"--starttime={since}",
                    f"--format={SACCT}",
                )  # fmt: skip
                found = {seen.base for seen in parse_sacct(text)}
            except OSError:
                self.accounts = False
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
            self.ended.clear()

    def _look(self) -> None:
        if time.monotonic() - self.looked < self.every_s:
            return
        try:
            self.seen = parse_squeue(
                ask("squeue", "--noheader", "--array", "--states=all", "--me", f"--format={SQUEUE}")
            )
            self.answers = True
        except OSError:
            self.answers = False
        self.looked = time.monotonic()

    def _of(self, job: str) -> list[SlurmJob]:
        """A job's elements, or the one that the id names, such as 4711_3."""
        found = [seen for seen in self.seen if job in {seen.base, seen.job}]
        if found or not self.accounts:
            return found
        base = job.partition("_")[0]
        when, known = self.ended.get(base, (-self.every_s, []))
        if time.monotonic() - when >= self.every_s:
            try:
                known = parse_sacct(
                    ask("sacct", "-X", "--parsable2", "--noheader", f"--jobs={base}", f"--format={SACCT}")
                )
            except OSError:
                self.accounts = False
                return []
            self.ended[base] = (time.monotonic(), known)
        return [seen for seen in known if job in {seen.base, seen.job}]


def ask(*command: str) -> str:
    """What a program of Slurm prints; raises OSError when it is not there, fails or takes too long."""
    environment = os.environ | {"SLURM_TIME_FORMAT": "%s"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=ANSWERS_WITHIN_S, env=environment
        )
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", "") or str(error)).strip()
        raise OSError(f"{command[0]}: {said}") from error
    return done.stdout


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
