"""A backend that is no part of the project: this class and an entry point are all that it takes.

Its jobs are processes, in place of those of another scheduler; what they are is written down where its names lead.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from infra.executors.executor import Executor, Submission, folder_of, outcome_of
from infra.ledger import Entry, JobState
from infra.processes import find_process, process_id, processes_of


class Toy(Executor):
    """A job is a process that reads its stage and writes to the stage's directory."""

    name, title = "toy", "Toy"

    def submit(self, submission: Submission) -> Iterator[Entry]:
        """Start `python -m xclr.job`, from the frozen code."""
        for attempt in submission.attempts:
            code, folder = submission.code(), folder_of(attempt.out, attempt.entry.name, attempt.entry.element)
            folder.mkdir(parents=True)
            with (folder / "log").open("wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "xclr.job", str(attempt.stage_json), str(attempt.out)],
                    cwd=code, env=os.environ | {"PYTHONPATH": str(code)}, stdout=log, stderr=log,
                    start_new_session=True,
                )  # fmt: skip
            (folder / "id").write_text(process_id(process.pid))
            yield self.find(attempt.entry, attempt.out)

    def find(self, entry: Entry, out: Path) -> Entry:
        """As its folder says."""
        folder = folder_of(out, entry.name, entry.element)
        if not (folder / "id").exists():
            return entry
        job = f"{self.name}/{(folder / 'id').read_text()}"
        return entry.model_copy(update={"job": job, "log": str(folder / "log")})

    def state(self, entry: Entry, out: Path) -> JobState:
        """Running while there is a process, then what it left."""
        return JobState.RUNNING if find_process(process_of(entry)) else outcome_of(out) or JobState.GONE

    def cancel(self, entries: Sequence[Entry]) -> bool:
        """Kill the processes."""
        for process in [each for entry in entries for each in processes_of(process_of(entry))]:
            process.kill()
        return True


def process_of(entry: Entry) -> str:
    """The id of a job's process."""
    return str(entry.job).partition("/")[2]
