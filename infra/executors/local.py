"""Jobs on this machine: processes that outlive their submitter."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import psutil

from infra.executors.executor import STAGE, Executor, Sight, Submission, outcome_of, rank_log
from infra.executors.signs import last_sign
from infra.ledger import UNSEEN_GRACE, Entry, JobState
from infra.processes import JobId, find_process, is_of_this_machine, now, process_id, processes_of, send
from xclr.store import LOCK, is_locked

LAST_WORDS = timedelta(seconds=15)
END_WITHIN_S = 10  # what is killed ends at once, unless the kernel is waiting for a disk


class Local(Executor):
    """A job is a process of this machine, or of another that shares HOME."""

    name, title, is_here = "local", "this machine", True

    def submit(self, submission: Submission) -> Iterator[Entry]:
        """Start one process, or one for each rank."""
        from infra.executors.detached import start  # status and plans need no submitit, which takes half a second

        (attempt,) = submission.attempts
        job = start(attempt, submission.resources, self.threads(submission.resources), submission.code())
        found = {"job": process_id(int(job.job_id)), "log": str(job.paths.stdout)}
        yield attempt.entry.model_copy(update=found)

    def state(self, entry: Entry, out: Path) -> JobState:
        """Running while there is a process, then what it left."""
        job = str(entry.job)
        if find_process(job):
            return JobState.RUNNING
        outcome = outcome_of(out)
        if outcome is not None:
            return outcome
        if is_of_this_machine(job):
            return JobState.GONE
        return JobState.RUNNING if is_locked(out) or _may_begin(entry, out) else JobState.GONE

    def cancel(self, entries: Sequence[Entry]) -> bool:
        """End processes of this machine and everything they started, and see them gone."""
        processes = [each for entry in entries for each in processes_of(str(entry.job))]
        for process in processes:
            send(process, signal.SIGKILL)
        psutil.wait_procs(processes, timeout=END_WITHIN_S)
        return bool(processes)

    def draw_name(self, what: str) -> str:
        """None: a process is found by its id."""
        return ""

    def look(self, entry: Entry) -> Sight:
        """Its machine."""
        return Sight(node=str(entry.job).rsplit("/", 2)[0])

    def ids(self, job: JobId) -> tuple[str, ...]:
        """The process's."""
        return (job.rsplit("/", 2)[1],)

    def call(self, job: JobId) -> str:
        """Process 99 of node a."""
        node, pid, _ = job.rsplit("/", 2)
        return f"process {pid} of {node}"

    def log(self, entry: Entry, asked: str, rank: int) -> Path:
        """submitit's."""
        return rank_log(Path(str(entry.log)), rank)


def _may_begin(entry: Entry, out: Path) -> bool:
    """True while a process that cannot be seen from here, and holds no lock, may have it still before it.

    Who begins takes the lock, and so touches it after the stage was written down; that a peer's last words may come a
    moment after the lock is let go is allowed for.
    """
    try:
        began = (out / LOCK).stat().st_mtime_ns > (out / STAGE).stat().st_mtime_ns
    except FileNotFoundError:
        began = False
    return now() - (last_sign(entry, out) if began else entry.claimed) < (LAST_WORDS if began else UNSEEN_GRACE)
