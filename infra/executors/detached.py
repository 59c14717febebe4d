"""submitit's processes on this machine, made to outlive their submitter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from submitit.local.local import LocalExecutor, LocalJob

from infra.executors.executor import Attempt
from infra.resources import Resources
from infra.stagejob import StageJob
from xclr.ownership import guarded


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
                umask=guarded.before,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return LocalJob(folder=self.folder, job_id=str(process.pid), process=process, tasks=list(range(ranks)))


def start(attempt: Attempt, resources: Resources, threads: int, code: Path) -> LocalJob[Any]:
    """Start a stage as a job on this machine that outlives its submitter."""
    with guarded():
        return _start(attempt, resources, threads, code)


def _start(attempt: Attempt, resources: Resources, threads: int, code: Path) -> LocalJob[Any]:
    (attempt.out / "jobs").mkdir(exist_ok=True)
    executor = DetachedExecutor(attempt.out / "jobs" / "%j", code)
    executor.update_parameters(
        timeout_min=resources.timeout_min, tasks_per_node=resources.ranks, gpus_per_node=resources.gpus
    )
    return executor.submit(StageJob(attempt.stage_json, attempt.out, threads))
