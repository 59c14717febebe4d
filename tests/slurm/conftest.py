"""Real clusters on this machine, one without and one with accounting, and a small run on them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.cluster import Cluster, Resources
from infra.ledger import Entry
from infra.slurm import private
from infra.slurm.queue import QUEUE, max_array_size
from tests.infra.conftest import TINY, _empty_database, open_run  # noqa: F401 - a fixture
from tests.infra.test_stage import data, orchestrate, pretrain_stage, until
from xclr.recipe import Recipe
from xclr.spool import SPOOL, read_spool

EVERY_S = 0.5


def pytest_collection_modifyitems(items) -> None:
    """All that is here starts a cluster, or talks to one."""
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent and "pure" not in item.keywords:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.slow)


def started(folder: Path, *, accounting: bool) -> Iterator[private.Private]:
    """A cluster for the session; where it cannot be, the reason. In CI it must be."""
    if absent := private.missing(accounting=accounting):
        why = f"Slurm is not installed: no {', '.join(absent)} (make cluster says what to install)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    cluster = private.up(folder, accounting=accounting)
    try:
        yield cluster
    finally:
        private.down(cluster.root)


@pytest.fixture(name="home")
def _home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="session")
def _plain(tmp_path_factory) -> Iterator[private.Private]:
    yield from started(tmp_path_factory.mktemp("slurm"), accounting=False)


@pytest.fixture(scope="session")
def _accounting(tmp_path_factory) -> Iterator[private.Private]:
    yield from started(tmp_path_factory.mktemp("slurmdb"), accounting=True)


@pytest.fixture
def cluster(_plain, monkeypatch) -> Iterator[private.Private]:
    """A cluster without accounting, in this process's environment; its jobs end with the test."""
    yield from _entered(_plain, monkeypatch)


@pytest.fixture
def accounting(_accounting, monkeypatch) -> Iterator[private.Private]:
    """A cluster with accounting, in this process's environment; its jobs end with the test."""
    yield from _entered(_accounting, monkeypatch)


def _entered(cluster: private.Private, monkeypatch) -> Iterator[private.Private]:
    for name, value in {**cluster.environment, "XCLR_SLURM_EVERY_S": str(EVERY_S)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(QUEUE, "every_s", EVERY_S)
    QUEUE.accounts = True
    QUEUE.forget()
    max_array_size.cache_clear()
    yield cluster
    subprocess.run(["scancel", "--user", str(os.getuid())], check=False)


def on_slurm(**changes: object) -> Cluster:
    """The small run's cluster: data stages in the orchestrator, pretraining as a job of two ranks."""
    job = {"executor": "slurm", "ranks": 2, "threads": 1, "gpus": 2, "timeout_min": 60, "warn_s": 30} | changes
    stages = {"pretrain": Resources.model_validate(job)}
    return Cluster(name="test", default=Resources(executor="inline"), stages=stages)


def recipe(**changes: object) -> Recipe:
    """The tiny recipe, so long that something can happen to it; `changes` to its training."""
    train = TINY["train"] | {"epochs": 60, "checkpoint_every": 10} | changes
    return Recipe.model_validate(TINY | {"train": train, "retries": {"lost_after_s": 5}})


def slurm(*command: str) -> str:
    """What a program of Slurm prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def submissions(home: Path) -> int:
    """How many jobs were ever submitted for a HOME, by their batch scripts' names in Slurm's own records."""
    shown = slurm("squeue", "--states=all", "--noheader", "--format=%k").splitlines()
    runs = {json.loads(path.read_text())["run"] for path in (home / "runs").glob("*.json")}
    return sum(any(f"run={run} " in line for run in runs) for line in shown)


@contextmanager
def everything_taken() -> Iterator[str]:
    """Another job that has all nodes, so that ours wait."""
    rival = slurm(
        "sbatch", "--parsable", "--output=/dev/null", "--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep 600"
    ).strip()
    try:
        until(lambda: state_of(rival) == "RUNNING", 60)
        yield rival
    finally:
        slurm("scancel", rival)


def losses(home: Path, digest: str) -> list[float]:
    """The logged losses of a training, each step once."""
    entries = [
        (entry.step, entry.metrics["train/loss"])
        for entry in read_spool(home / "artifacts" / "pretrain" / digest / SPOOL)
    ]
    assert [step for step, _ in entries] == list(range(1, len(entries) + 1))
    return [loss for _, loss in entries]


class Watched:
    """A training of the small run that an orchestrator of its own waits for."""

    def __init__(self, home: Path, of: Recipe, where: Cluster) -> None:
        run = open_run(home, recipe=of, cluster=where)
        self.home, self.recipe, self.where, self.book = home, of, where, run.book
        self.digest = str(pretrain_stage(run, data(run)).digest)
        run.close("completed")
        self.out = run.store.root / "pretrain" / self.digest
        self.process = orchestrate(home, of, where)

    def entry(self, attempt: int = 1) -> Entry:
        """The attempt, once it has its job."""
        return until(
            lambda: (found := self.book.latest(self.digest)) and found.attempt == attempt and found.job and found, 60
        )

    def job(self, attempt: int = 1) -> str:
        """Slurm's id of the attempt's job."""
        return str(self.entry(attempt).job).removeprefix("slurm/")

    def reaches(self, step: int) -> None:
        """Wait until a step was logged."""
        path = self.out / SPOOL
        until(lambda: path.exists() and path.read_bytes().count(b"\n") >= step, 120)

    def finish(self) -> list[float]:
        """The losses, when the orchestrator has ended well."""
        assert self.process.wait(timeout=150) == 0
        return losses(self.home, self.digest)

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()


def state_of(job: str) -> str:
    """Slurm's word for a job of the queue."""
    return slurm("squeue", "--states=all", "--noheader", f"--jobs={job}", "--format=%T").strip()


def restarts(job: str) -> int:
    """How often Slurm started a job again."""
    return int(re.search(r"Restarts=(\d+)", slurm("scontrol", "show", "job", job)).group(1))
