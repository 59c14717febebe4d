"""What can be seen of an attempt: its claimer, its job, and the outcome that it left."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from infra.executors.executor import executor_of
from infra.ledger import Entry, JobState
from infra.processes import JobId, find_process, is_of_this_machine, now

SETTLES_IN = timedelta(seconds=20)  # an sbatch that outlives its caller ends within that


def observe(entry: Entry, out: Path) -> dict[JobId, JobState]:
    """What can be seen of an attempt's processes, jobs and outcome from this machine."""
    claimer = _claimer(entry)
    observed = {} if claimer is None else {entry.owner: claimer}
    if entry.job is not None:
        observed[entry.job] = executor_of(entry.job).state(entry, out)
    return observed


def find_again(entry: Entry, out: Path) -> Entry:
    """The entry with its job, when its claimer submitted one and died before it could write that down.

    Raises OSError when the scheduler does not answer.
    """
    if entry.job is not None or entry.state is not None or not entry.name or _claimer(entry) is JobState.RUNNING:
        return entry
    return executor_of(entry.name).find(entry, out)


def _claimer(entry: Entry) -> JobState | None:
    """Running while the claimer may be submitting."""
    if not is_of_this_machine(entry.owner):
        return None
    submitting = bool(entry.name) and now() - entry.claimed < SETTLES_IN
    return JobState.RUNNING if submitting or find_process(entry.owner) else JobState.GONE
