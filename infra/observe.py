"""What can be seen of an attempt: its claimer, its job here or in Slurm, and the outcome that it left."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from infra.ledger import UNSEEN_GRACE, Entry, JobState
from infra.processes import JobId, find_process, is_of_this_machine, now
from infra.slurm.queue import PREFIX, QUEUE, Whole, folder_of, is_slurm, log_of, whole
from xclr.job import FAILURE, RESULT, STOPPED
from xclr.store import is_locked

SETTLES_IN = timedelta(seconds=20)  # an sbatch that outlives its caller ends within that
CLOCKS = timedelta(minutes=5)  # between this machine's and the controller's


def observe(entry: Entry, out: Path) -> dict[JobId, JobState]:
    """What can be seen of an attempt's processes, jobs and outcome from this machine."""
    claimer = _claimer(entry)
    observed = {} if claimer is None else {entry.owner: claimer}
    if entry.job is not None:
        observed[entry.job] = _slurm(entry, out) if is_slurm(entry.job) else _local(entry, entry.job, out)
    return observed


def found_again(entry: Entry, out: Path) -> Entry:
    """The entry with its job, when its claimer submitted one and died before it could write that down.

    Raises OSError when Slurm does not answer.
    """
    if entry.job is not None or entry.state is not None or not entry.name or _is_busy(entry):
        return entry
    ids = QUEUE.named(entry.name)
    if not ids:
        return entry
    folder = folder_of(out, entry.name, entry.element)
    if entry.element is not None:
        job = f"{PREFIX}{ids[-1]}_{entry.element}"
        return entry.model_copy(update={"job": job, "log": str(log_of(folder, job, array=False))})
    job = PREFIX + "+".join(ids)
    logs = sorted(folder.glob(f"{ids[0]}_*_log.out"))
    return entry.model_copy(update={"job": job, "log": str(logs[0] if logs else log_of(folder, job, array=False))})


def _is_busy(entry: Entry) -> bool:
    """True while the claimer may be submitting."""
    return _claimer(entry) is JobState.RUNNING


def _claimer(entry: Entry) -> JobState | None:
    if not is_of_this_machine(entry.owner):
        return None
    submitting = bool(entry.name) and now() - entry.claimed < SETTLES_IN
    return JobState.RUNNING if submitting or find_process(entry.owner) else JobState.GONE


def elements(entry: Entry) -> Whole | None:
    """The attempt's job as Slurm shows it; None when it shows none, or another of the same number."""
    found = QUEUE.find(str(entry.job))
    if found is None or found.state is JobState.UNKNOWN:
        return found
    ours = tuple(
        each
        for each in found.elements
        if each.name == entry.name and (each.submitted is None or each.submitted > entry.claimed - CLOCKS)
    )
    return whole(ours) if ours else None


def _slurm(entry: Entry, out: Path) -> JobState:
    seen = elements(entry)
    if seen is not None and seen.live:
        return seen.state
    if seen is not None and seen.state is JobState.CANCELLED:
        return JobState.COMPLETED if (out / RESULT).exists() else JobState.CANCELLED
    outcome = _outcome(out)
    if outcome is not None:
        return outcome
    return JobState.UNSEEN if seen is None else seen.state


def _local(entry: Entry, job: JobId, out: Path) -> JobState:
    if find_process(job):
        return JobState.RUNNING
    outcome = _outcome(out)
    if outcome is not None:
        return outcome
    if is_of_this_machine(job):
        return JobState.GONE
    # the processes of another machine cannot be seen, its lock can, once it has started
    seen = is_locked(out) or now() - entry.claimed < UNSEEN_GRACE
    return JobState.RUNNING if seen else JobState.GONE


def _outcome(out: Path) -> JobState | None:
    """What the job left beside its output."""
    states = {RESULT: JobState.COMPLETED, FAILURE: JobState.FAILED, STOPPED: JobState.STOPPED}
    return next((state for name, state in states.items() if (out / name).exists()), None)
