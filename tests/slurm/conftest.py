"""Real clusters on this machine, one without and one with accounting."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.executors.executor import executor_named
from infra.slurm import private
from tests.kit.polling import until
from tests.kit.slurm import RECIPE, SECRET, on_slurm, slurm
from tests.kit.trainings import Training

EVERY_S = 0.5


def pytest_collection_modifyitems(items) -> None:
    """All that is here starts a cluster, or talks to one."""
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent and "pure" not in item.keywords:
            for mark in (pytest.mark.slurm, pytest.mark.slow):
                item.add_marker(mark)


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
def cluster(_plain) -> Iterator[private.Private]:
    """A cluster without accounting, in this process's environment; its jobs end with the test."""
    with entered(_plain):
        yield _plain


@pytest.fixture
def accounting(_accounting) -> Iterator[private.Private]:
    """A cluster with accounting, in this process's environment; its jobs end with the test."""
    with entered(_accounting):
        yield _accounting


@contextmanager
def entered(cluster: private.Private) -> Iterator[None]:
    """A cluster's environment, and our queue's view of it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**cluster.environment, "XCLR_SLURM_EVERY_S": str(EVERY_S)}.items():
            patch.setenv(name, value)
        executor_named.cache_clear()  # what it knows is of another cluster
        yield
        subprocess.run(["scancel", "--user", str(os.getuid())], check=False)
        until(_idle, tell=lambda: slurm("squeue") + slurm("sinfo", "--long"))


def _idle() -> bool:
    """Nothing is in the queue, and every node may be had: so the next test finds it, whatever this one did."""
    states = slurm("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T").split()
    return not slurm("squeue", "--noheader").strip() and set(states) == {"idle"}


@pytest.fixture(scope="session")
def undisturbed(_plain, tmp_path_factory) -> Training:
    """A training to which nothing happens, submitted by somebody who has a secret."""
    with entered(_plain), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_TOKEN", SECRET)
        with Training(tmp_path_factory.mktemp("undisturbed") / "home", RECIPE, on_slurm()) as training:
            training.follow().result()
        return training


@pytest.fixture
def whole(undisturbed) -> list[float]:
    """The losses of the training when nothing happens to it."""
    return undisturbed.losses()
