"""Prefect's API, asked as any program asks it."""

from __future__ import annotations

import http
import json
import urllib.error
import urllib.request
from base64 import b64encode
from typing import Any

from tests.kit.polling import until
from tests.kit.servers import Served

CLIENT = "tests"
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def ask(server: Served, path: str, body: object | None = None) -> Any:
    """What a server answers to GET, or to POST when there is a body; asked again while its database is busy (503)."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {b64encode(server.auth.encode()).decode()}"}
    if data is not None:
        token = ask(server, f"/csrf-token?client={CLIENT}")["token"]
        headers |= {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": CLIENT}
    request = urllib.request.Request(f"{server.prefect}/api{path}", data, headers)

    def answered() -> tuple[Any] | None:
        try:
            return (json.load(urllib.request.urlopen(request)),)
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            return None

    return until(answered)[0]


def run_deployment(server: Served, name: str, **parameters: object) -> str:
    """Ask for a run of a deployment; the id of the flow run."""
    deployment = ask(server, f"/deployments/name/{name}")["id"]
    return ask(server, f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})["id"]


def end_of(server: Served, flow_run: str) -> dict[str, Any]:
    """The state of a flow run, once it has ended."""
    return until(lambda: (state := ask(server, f"/flow_runs/{flow_run}")["state"])["type"] in ENDED and state, 600)


def artifacts_of(server: Served, flow_run: str) -> dict[str, dict[str, Any]]:
    """The artifacts of a flow run by their keys."""
    found = ask(server, "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run]}}})
    return {each["key"]: each for each in found}
