"""Prefect as its ordinary user has it: a work pool, the deployments, a worker, the command line in a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.kit.servers import PROXIED, Served
from tests.kit.terminal import Shown, in_terminal

ROOT = Path(__file__).parents[2]
PROGRAM = str(Path(sys.executable).with_name("prefect"))
Prefect = Callable[..., Shown]


def client_environment(served: Served, home: Path, own: Path) -> dict[str, str]:
    """What `xclr serve` tells a Prefect user to export, and a Prefect home without that user's profiles."""
    return {
        **os.environ,
        **PROXIED,
        "no_proxy": "127.0.0.1,localhost",
        **served.environment,
        "PREFECT_HOME": str(own),
        "XCLR_HOME": str(home),
    }


def caller(environment: Mapping[str, str]) -> Prefect:
    """Prefect's command line in an environment."""

    def call(*arguments: str, timeout: float = 600) -> Shown:
        return in_terminal([PROGRAM, *arguments], cwd=ROOT, environment=environment, timeout_s=timeout)

    return call


@contextmanager
def deployed(environment: Mapping[str, str]) -> Iterator[Prefect]:
    """Prefect's command line after work pool, deploy and worker; what asks something ends in an error."""
    call = caller(environment)
    for arguments in (("work-pool", "create", "xclr", "--type", "process"), ("deploy", "--all")):
        done = call(*arguments)
        assert done.returncode == 0, done.stdout
    worker = start_worker(environment)
    try:
        yield call
    finally:
        end_worker(worker)


def start_worker(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A worker of the pool."""
    return subprocess.Popen(
        [PROGRAM, "worker", "start", "--pool", "xclr"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def end_worker(worker: subprocess.Popen[bytes]) -> None:
    """Stop a worker."""
    worker.terminate()
    try:
        worker.wait(timeout=60)
    except subprocess.TimeoutExpired:  # a worker may need a second one
        worker.kill()
