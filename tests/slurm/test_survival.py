"""A training on a real cluster is preempted, timed out, requeued, loses its node: the losses are the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from infra.ledger import JobState
from infra.slurm import private
from tests.infra.test_stage import until
from tests.slurm.conftest import Watched, on_slurm, recipe, restarts, slurm, state_of

RECIPE = recipe(epochs=30)


@pytest.fixture(scope="module")
def whole(_plain, tmp_path_factory):
    """The losses of the same training when nothing happens to it."""
    environment = {**_plain.environment, "XCLR_SLURM_EVERY_S": "0.5"}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        with Watched(tmp_path_factory.mktemp("whole") / "home", RECIPE, on_slurm()) as watched:
            return watched.finish()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def test_a_preempted_training_goes_on(cluster, home, whole):
    with Watched(home, RECIPE, on_slurm(partition="low")) as watched:
        job = watched.job()
        watched.reaches(20)
        rival = slurm(
            "sbatch",
            "--parsable",
            "--output=/dev/null",
            "--partition=high",
            "--nodes=2",
            "--exclusive",
            "--wrap=sleep 2",
        ).strip()
        until(lambda: state_of(rival) == "COMPLETED", 60)
        assert watched.finish() == whole
        assert restarts(job) == 1 and watched.book.latest(watched.digest).attempt == 1
        assert "this job is preempted" in Path(watched.entry().log).read_text()


def test_a_training_that_reaches_its_time_limit_goes_on(cluster, home, whole):
    short = on_slurm(timeout_min=1, warn_s=10)
    with Watched(home, RECIPE, short) as watched:
        job = watched.job()
        watched.reaches(10)
        with held(job) as ranks:  # however fast the machine is: Slurm looks at limits only twice a minute
            until(lambda: restarts(job) == 1 or any(is_told(rank, signal.SIGUSR2) for rank in ranks), 90)
        until(lambda: restarts(job) == 1, 60)
        assert watched.finish() == whole
        assert "this job is timed-out" in Path(watched.entry().log).read_text()


def test_a_requeued_training_goes_on(cluster, home, whole):
    with Watched(home, RECIPE, on_slurm()) as watched:
        job = watched.job()
        watched.reaches(20)
        slurm("scontrol", "requeue", job)
        assert watched.finish() == whole
        assert restarts(job) == 1 and watched.book.latest(watched.digest).attempt == 1


def test_a_training_that_loses_its_node_goes_on_at_another(cluster, home, whole):
    with Watched(home, RECIPE, on_slurm()) as watched:
        job = watched.job()
        watched.reaches(20)
        node = slurm("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()
        lose(cluster, node, job)
        try:
            assert watched.finish() == whole
        finally:
            private.start_node(cluster, node)
        assert slurm("squeue", "--states=all", "--noheader", f"--jobs={job}", "--format=%N").strip() != node


def test_a_training_that_is_only_told_to_end_saves_and_is_submitted_again(cluster, home, whole):
    with Watched(home, RECIPE, on_slurm()) as watched:
        job = watched.job()
        watched.reaches(20)
        slurm("scancel", "--signal=TERM", job)
        second = watched.entry(attempt=2)
        assert second.before == (JobState.STOPPED,)
        assert watched.finish() == whole


def test_a_killed_rank_ends_the_job_at_once_and_it_is_submitted_again(cluster, home, whole):
    with Watched(home, RECIPE, on_slurm()) as watched:
        job = watched.job()
        watched.reaches(20)
        next(each for each in tasks(job) if each.environ().get("SLURM_PROCID") == "1").send_signal(signal.SIGKILL)
        assert watched.entry(attempt=2).before == (JobState.GONE,)
        assert watched.finish() == whole


def tasks(job: str) -> list[psutil.Process]:
    """The processes of a job."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_JOB_ID") == job:
                found.append(process)
        except psutil.Error:
            continue
    return found


@contextmanager
def held(job: str) -> Iterator[list[psutil.Process]]:
    """The ranks of a job, which do nothing meanwhile; signals wait for them."""
    ranks = [each for each in tasks(job) if "SLURM_PROCID" in each.environ()]
    try:
        for rank in ranks:
            rank.suspend()
        yield ranks
    finally:
        for rank in ranks:
            with suppress(psutil.NoSuchProcess):
                rank.resume()


def is_told(process: psutil.Process, number: signal.Signals) -> bool:
    """Whether a signal waits for a process (`ShdPnd` in proc(5))."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:
        return False
    waiting = next(line for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(waiting.split()[1], 16) >> (number - 1) & 1)


def lose(cluster: private.Private, node: str, job: str) -> None:
    """What a power cut does: the daemon of a node and all that runs there are gone, and nobody says so."""
    private.stop_daemon(cluster, f"slurmd.{node}", kill=True)
    steps = (each for each in psutil.process_iter() if each.name() == "slurmstepd")
    for process in [*(each for each in steps if f"[{job}." in "".join(each.cmdline())), *tasks(job)]:
        process.kill()
