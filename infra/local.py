"""Jobs on this machine through submitit: processes that outlive their submitter."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from submitit.local.local import LocalExecutor, LocalJob

from infra.cluster import Resources
from infra.processes import JobId, process_id, processes_of
from infra.slurm.job import StageJob

END_WITHIN_S = 10  # what is killed ends at once, unless the kernel is waiting for a disk


class Submitted(NamedTuple):
    """A job that was started."""

    job: JobId
    log: str


class DetachedExecutor(LocalExecutor):  # type: ignore[misc]
    """submitit's local executor whose jobs are sessions of their own and run frozen code.

    submitit's controller stays in the terminal's process group, so that a Ctrl-C meant for the orchestrator would end
    the training too.
    """

    def __init__(self, folder: Path, code: Path) -> None:
        super().__init__(folder)
        self.code = code

    def _submit_command(self, command: str) -> LocalJob[Any]:
        ranks = self.parameters.get("tasks_per_node", 1)
        environment = os.environ | {
            "PYTHONPATH": str(self.code),
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
                cwd=self.code,
                env=environment,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return LocalJob(folder=self.folder, job_id=str(process.pid), process=process, tasks=list(range(ranks)))


def submit(stage_json: Path, out: Path, resources: Resources, code: Path) -> Submitted:
    """Start a stage as a job on this machine that outlives its submitter."""
    executor = DetachedExecutor(out / "jobs" / "%j", code)
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
