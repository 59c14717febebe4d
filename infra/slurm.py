"""Jobs through submitit: what is submitted, and how a job on this machine is started and ended."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import submitit
from submitit.core.utils import DelayedSubmission
from submitit.local.local import LocalExecutor, LocalJob

from infra.cluster import Resources
from infra.ledger import JobId, process_id, processes_of
from xclr.stages import Stage
from xclr.store import write_atomically

STAGE = "stage.json"
END_WITHIN_S = 10  # what is killed ends at once, unless the kernel is waiting for a disk


class StageJob:
    """What a job runs: paths and numbers only, so that its pickle holds no code, environment or secret."""

    def __init__(self, stage_json: Path, out: Path, threads: int) -> None:
        self.stage_json, self.out, self.threads = str(stage_json), str(out), threads
        self.meeting = uuid.uuid4().hex  # ranks meet in a file of this attempt only

    def __call__(self) -> int:
        """Run the stage as one rank; the outcome is a file in `out`."""
        place = submitit.JobEnvironment()
        os.environ.update(
            RANK=str(place.global_rank),
            WORLD_SIZE=str(place.num_tasks),
            LOCAL_RANK=str(place.local_rank),
            XCLR_RENDEZVOUS=f"file://{self.out}/jobs/.meeting-{self.meeting}",
            XCLR_THREADS=str(self.threads),
        )
        if sys.platform == "linux" and place.num_nodes == 1:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        from xclr.job import main

        return main(Path(self.stage_json), Path(self.out))

    def checkpoint(self) -> DelayedSubmission:
        """A fresh job, which resumes from what is on disk."""
        return DelayedSubmission(StageJob(Path(self.stage_json), Path(self.out), self.threads))


class Submitted(NamedTuple):
    """A job that was started."""

    job: JobId
    log: str


class DetachedExecutor(LocalExecutor):  # type: ignore[misc]
    """submitit's local executor whose jobs are sessions of their own.

    submitit's controller stays in the terminal's process group, so that a Ctrl-C meant for the orchestrator would end
    the training too.
    """

    def _submit_command(self, command: str) -> LocalJob[Any]:
        ranks = self.parameters.get("tasks_per_node", 1)
        environment = os.environ | {
            "SUBMITIT_LOCAL_NTASKS": str(ranks),
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_TIMEOUT_S": str(60 * self.parameters["timeout_min"]),
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": "30",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_STDERR_TO_STDOUT": "1",
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_WITH_SHELL": "",
        }
        with (self.folder.parent / "controller.log").open("ab") as log:  # not the terminal's streams, nor a pipe's
            process = subprocess.Popen(
                [sys.executable, "-m", "submitit.local._local", str(self.folder)],
                env=environment,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return LocalJob(folder=self.folder, job_id=str(process.pid), process=process, tasks=list(range(ranks)))


def submit(stage: Stage, out: Path, resources: Resources) -> Submitted:
    """Start a stage as a job on this machine that outlives its submitter."""
    stage_json = out / STAGE
    write_atomically(stage_json, stage.to_json())
    (out / "jobs").mkdir(exist_ok=True)
    executor = DetachedExecutor(folder=out / "jobs" / "%j")
    executor.update_parameters(
        timeout_min=resources.timeout_min, tasks_per_node=resources.ranks, gpus_per_node=resources.gpus
    )
    job = executor.submit(StageJob(stage_json, out, resources.threads_per_rank))
    return Submitted(process_id(int(job.job_id)), str(job.paths.stdout))


def cancel(job: JobId) -> int:
    """End a job of this machine and everything it started, and see them gone; returns how many processes that were."""
    processes = list(processes_of(job))
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=END_WITHIN_S)
    return len(processes)
