"""What tests of several wings start from: one finished smoke run, and the servers over it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest


def command(home: Path, *arguments: str) -> list[str]:
    """The command line as a person types it, for one HOME."""
    return [sys.executable, "-m", "flows.cli", *arguments, "--home", str(home)]


def free_ports(number: int) -> list[int]:
    """Ports of the loopback interface that nothing listens on."""
    probes = [socket.socket() for _ in range(number)]
    try:
        for each in probes:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in probes]
    finally:
        for each in probes:
            each.close()


@pytest.fixture(scope="session")
def smoke_home(tmp_path_factory) -> Path:
    """A HOME in which the smoke recipe was killed in the middle and then run to its end."""
    home = tmp_path_factory.mktemp("smoke") / "home"
    process = subprocess.Popen(command(home, "run", "smoke"), stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "images" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.parent.name for path in home.glob("artifacts/*/*/manifest.json")}
    done = subprocess.run(command(home, "run", "smoke"), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    for name in before:
        (kind,) = {path.parent.parent.name for path in home.glob(f"artifacts/*/{name}/manifest.json")}
        assert re.search(rf"{kind} hit", done.stderr), "a finished stage was made again"
    (home / "table.txt").write_text(done.stdout)
    (home / "said.txt").write_text(done.stderr)
    return home


class Served(NamedTuple):
    """Addresses of the two servers of `xclr serve`."""

    prefect: str
    mlflow: str


@pytest.fixture(scope="module")
def served(smoke_home: Path) -> Iterator[Served]:
    """`xclr serve` over the smoke run."""
    with serving(smoke_home) as addresses:
        yield addresses


@contextmanager
def serving(home: Path) -> Iterator[Served]:
    """`xclr serve` over a HOME."""
    prefect, mlflow = free_ports(2)
    ports = ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    process = subprocess.Popen([*command(home, "serve"), *ports], stdout=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        assert f":{mlflow}" in lines[1], lines
        yield Served(f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{mlflow}")
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0


@pytest.fixture(scope="session", autouse=True)
def _quiet_prefect() -> None:
    """Nothing is reported to anybody from tests."""
    os.environ |= {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
