"""Stages in the orchestrator's own process."""

from __future__ import annotations

from collections.abc import Iterator

from infra.executors.executor import Submission
from infra.executors.local import Local
from infra.ledger import Entry, JobState
from infra.processes import now
from xclr.job import record_failure, run_stage


class Inline(Local):
    """A job is the process that claims it, and has ended when it is submitted."""

    name = "inline"

    def submit(self, submission: Submission) -> Iterator[Entry]:
        """Run the stage."""
        ((entry, stage, out, _),) = submission.attempts
        entry = entry.model_copy(update={"job": entry.owner})
        yield entry
        state = JobState.COMPLETED
        try:
            run_stage(stage, out, self.threads(submission.resources))
        except Exception as error:  # noqa: BLE001 - the boundary a job of its own would have: it is written down
            record_failure(out, error)
            state = JobState.FAILED
        yield entry.model_copy(update={"state": state, "ended": now()})
