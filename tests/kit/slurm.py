"""What tests ask of a real cluster and do to it; of several on a machine only the one of this process's environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from infra.cluster import Cluster
from infra.resources import Resources
from infra.slurm import private
from tests.kit.polling import EVERY_S, until
from tests.kit.recipes import CLUSTER, STEPS, tiny
from xclr.shards import SHARDS

RECIPE = tiny(epochs=3, checkpoint_every=4)  # of the training of which everything is told
HELD_AT = STEPS + 2  # in the middle of its second epoch, and between two checkpoints
SECRET = "hush-hush-4711"  # of who submitted it
JOB = {"executor": "slurm", "threads": 1, "timeout_min": 60}


def on_slurm(**changes: object) -> Cluster:
    """The small run's cluster: data stages in the orchestrator, pretraining as a job of two ranks."""
    pretrain = Resources.model_validate(JOB | {"ranks": 2, "gpus": 2, "warn_s": 30} | changes)
    return CLUSTER.model_copy(update={"stages": {"pretrain": pretrain}})


def slurm(*command: str) -> str:
    """What a program of Slurm prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def sbatch(*flags: str, wrap: str) -> str:
    """Submit a job that is nothing of ours; its id."""
    return slurm("sbatch", "--parsable", "--output=/dev/null", *flags, f"--wrap={wrap}").strip()


def state_of(job: str) -> str:
    """Slurm's word for a job of the queue."""
    return slurm("squeue", "--states=all", "--noheader", f"--jobs={job}", "--format=%T").strip()


def node_of(job: str) -> str:
    """Where a job runs."""
    return slurm("squeue", "--states=all", "--noheader", f"--jobs={job}", "--format=%N").strip()


def restarts(job: str) -> int:
    """How often Slurm started a job again."""
    return int(re.search(r"Restarts=(\d+)", slurm("scontrol", "show", "job", job)).group(1))


def elements_named(name: str) -> list[str]:
    """Ids of the elements of arrays of that name."""
    return slurm("squeue", "--states=all", "--array", "--noheader", f"--name={name}", "--format=%i").split()


def submissions(home: Path) -> int:
    """How many jobs were ever submitted for a HOME, by their batch scripts' names in Slurm's own records."""
    shown = slurm("squeue", "--states=all", "--noheader", "--format=%k").splitlines()
    runs = {json.loads(path.read_text())["run"] for path in (home / "runs").glob("*.json")}
    return sum(any(f"run={run} " in line for run in runs) for line in shown)


@contextmanager
def everything_taken() -> Iterator[str]:
    """Another job that has all nodes, so that ours wait."""
    rival = sbatch("--partition=high", "--nodes=2", "--exclusive", wrap="sleep 600")
    try:
        until(lambda: state_of(rival) == "RUNNING")
        yield rival
    finally:
        slurm("scancel", rival)


def processes(**variables: str) -> Iterator[psutil.Process]:
    """The processes of this cluster in whose environment are these variables."""
    wanted = {
        f"{name}={value}".encode() for name, value in (variables | {"SLURM_CONF": os.environ["SLURM_CONF"]}).items()
    }
    return (each for each in psutil.process_iter() if wanted <= _environment(each))


def _environment(process: psutil.Process) -> set[bytes]:
    """As it began; psutil's ends where slurmstepd has written its title over it."""
    try:
        return set(Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


def element(out: Path, first: str) -> psutil.Process | None:
    """The process of the first array's third element, while its shard is not done and another one is."""
    finished = {path.name for path in (out / SHARDS).glob("[0-9]*")}
    if not finished or "00002" in finished:
        return None
    found = processes(SLURM_ARRAY_JOB_ID=first, SLURM_ARRAY_TASK_ID="2")
    return next((each for each in found if each.name().startswith("python")), None)


def lose(cluster: private.Private, node: str) -> None:
    """What a power cut does: the daemon of a node and all that runs there are gone, and nobody says so."""
    private.stop_daemon(cluster, f"slurmd.{node}", kill=True)
    jobs = slurm("squeue", "--noheader", "--array", f"--nodelist={node}", "--states=running", "--format=%A").split()
    quiet = 0
    while quiet < 2:  # what one of them was just starting would live on, and hold the lock of its output
        quiet = 0 if _end_processes_of(jobs) else quiet + 1
        time.sleep(EVERY_S)


def _end_processes_of(jobs: Sequence[str]) -> int:
    """Kill them, those first who would tell; returns how many there were."""
    seen, variables = list(processes()), {f"SLURM_JOB_ID={job}".encode() for job in jobs}
    tellers = [each for each in seen if any(f"[{job}." in _step(each) for job in jobs)]
    found = tellers + [each for each in seen if _environment(each) & variables]
    for each in found:
        with suppress(psutil.Error):
            each.kill()
    return len(found)


def _step(process: psutil.Process) -> str:
    """What Slurm's daemon of a step calls itself; nothing for other processes."""
    with suppress(psutil.Error):
        return "".join(process.cmdline()) if process.name() == "slurmstepd" else ""
    return ""
