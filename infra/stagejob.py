"""What is submitted: a callable that holds paths and numbers only."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import submitit
from submitit.core.utils import DelayedSubmission, UncompletedJobError

from xclr.errors import JobError


class StageJob:
    """Runs a stage, or one shard of it, as one rank.

    Its pickle holds no code, environment or secret.
    """

    def __init__(self, stage_json: Path, out: Path, threads: int, shard: int | None = None) -> None:
        self.stage_json, self.out, self.threads, self.shard = str(stage_json), str(out), threads, shard
        self.meeting = uuid.uuid4().hex  # ranks meet in a file of this attempt only

    def __call__(self) -> int:
        """Run; the outcome is a file in `out`, and on Slurm the exit code too, so that `sacct` tells the truth."""
        place = submitit.JobEnvironment()
        # a requeue from outside starts the same pickle again
        meeting = f"{self.meeting}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"
        os.environ.update(
            RANK=str(place.global_rank),
            WORLD_SIZE=str(place.num_tasks),
            LOCAL_RANK=str(place.local_rank),
            XCLR_RENDEZVOUS=f"file://{self.out}/jobs/.meeting-{meeting}",
            XCLR_THREADS=str(self.threads),
        )
        if sys.platform == "linux" and place.num_nodes == 1:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        code = self._run()
        if code and place.cluster == "slurm":
            raise SystemExit(code)
        return code

    def checkpoint(self) -> DelayedSubmission:
        """A fresh job, which resumes from what is on disk."""
        return DelayedSubmission(StageJob(Path(self.stage_json), Path(self.out), self.threads, self.shard))

    def _run(self) -> int:
        from xclr.job import main, record_failure

        try:
            return main(Path(self.stage_json), Path(self.out), self.shard)
        except UncompletedJobError as error:  # submitit does not requeue it any more
            remedy = "raise timeout_min in the cluster file, or retries.timeouts in the recipe, and run it again"
            record_failure(Path(self.out), JobError(str(error), remedy))
            raise


class ArrayJob:
    """Of several jobs, runs the one with the number of the array element."""

    def __init__(self, jobs: Sequence[StageJob]) -> None:
        self.jobs = tuple(jobs)

    def __call__(self) -> int:
        """Run the element's job."""
        return self._own()()

    def checkpoint(self) -> DelayedSubmission:
        """A fresh job for this element, which is no array of its own."""
        return self._own().checkpoint()

    def _own(self) -> StageJob:
        return self.jobs[int(submitit.JobEnvironment().array_task_id or 0)]
