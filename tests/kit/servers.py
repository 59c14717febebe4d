"""`xclr serve`, from its start to its end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock
from urllib.parse import urlsplit

from infra import servers
from infra.access import auth_string, mlflow_access, prefect_access
from tests.kit.command import command

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROXIED = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")  # nothing listens there


class Served(NamedTuple):
    """Addresses of the two servers of `xclr serve`, and whose they are."""

    prefect: str
    mlflow: str
    home: Path

    @property
    def auth(self) -> str:
        """Name and password of the servers."""
        return auth_string(self.home / "state")

    @property
    def environment(self) -> dict[str, str]:
        """What a client of the Prefect server needs."""
        return {"PREFECT_API_URL": f"{self.prefect}/api", **prefect_access(self.home / "state")}


@contextmanager
def known_to_mlflow(served: Served) -> Iterator[MlflowClient]:
    """A client of the MLflow server, which says who asks as long as the block lasts: MLflow reads the environment."""
    from mlflow import MlflowClient  # heavy

    with mock.patch.dict(os.environ, mlflow_access(served.home / "state")):
        yield MlflowClient(served.mlflow)


@contextmanager
def serving(home: Path) -> Iterator[Served]:
    """`xclr serve` over a HOME; Ctrl-C ends it and both servers."""
    prefect, mlflow = free_ports(2)
    ports = ["--prefect-port", str(prefect), "--mlflow-port", str(mlflow)]
    process = subprocess.Popen(
        [*command(home, "serve"), *ports], stdout=subprocess.PIPE, text=True, env=os.environ | PROXIED
    )
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        assert f":{prefect}" in lines[0] and f":{mlflow}" in lines[1], lines
        yield Served(f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{mlflow}", home)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 0
    assert not any(servers.find(each, home / "state") for each in (servers.PREFECT, servers.MLFLOW))


def status_of(url: str, method: str, path: str, **headers: str) -> int:
    """The status of an answer, whatever host is named."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request(method, path, body=json.dumps({"name": "x"}) if method == "POST" else None, headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


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
