"""What a notification block is told, by a receiver on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar
from uuid import uuid4

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Crashed, Failed

from flows import notify
from flows.full import full
from flows.sweep import sweep

BUDGET = "sweep warm may take 96 GPU-hours, more than the 10 allowed -> sweep fewer values or raise --max-gpu-hours"


class Receiver(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    got: ClassVar[list[dict[str, str]]] = []
    status = 200

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture(name="block")
def _block() -> Iterator[CustomWebhookNotificationBlock]:
    Receiver.got, Receiver.status = [], 200
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield CustomWebhookNotificationBlock(
        name="here", url=f"http://127.0.0.1:{server.server_port}/hook", allow_private_urls=True,
        json_data={"title": "{{subject}}", "text": "{{body}}"},
    )  # fmt: skip
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("state", "parts"),
    [
        (Completed(), ["emoji: Completed"]),
        (Failed(message="pretrain clip seed 0: it failed -> see the log"), ["emoji: Failed", "-> see the log"]),
        (Failed(message=BUDGET), ["more than the 10 allowed"]),
        (Crashed(message="the process was killed"), ["emoji: Crashed", "was killed"]),
    ],
)
def test_the_end_of_a_run_is_told_with_its_reason_and_remedy(state, parts, block, monkeypatch):
    monkeypatch.setenv("XCLR_NOTIFY", "custom-webhook/here")
    monkeypatch.setattr(notify, "load", lambda name: block)
    assert notify.lacking() is None
    notify.notify(full, FlowRun(id=uuid4(), flow_id=uuid4(), name="emoji"), state)
    (told,) = Receiver.got
    assert told["title"] == f"xclr emoji: {state.name}"
    assert all(part in told["text"] for part in parts)


def test_what_cannot_be_told_is_a_warning_and_who_asks_for_nothing_is_told_nothing(block, monkeypatch):
    run, warnings = FlowRun(id=uuid4(), flow_id=uuid4(), name="emoji"), []

    class Log:
        def warning(self, text, *values):
            warnings.append(text % values)

    monkeypatch.setattr(notify, "flow_run_logger", lambda run, flow: Log())
    monkeypatch.setattr(notify, "load", lambda name: block)
    notify.notify(full, run, Completed())
    assert (Receiver.got, warnings) == ([], [])
    monkeypatch.setenv("XCLR_NOTIFY", "custom-webhook/here")
    Receiver.status = 500
    notify.notify(full, run, Completed())
    assert len(warnings) == 1 and "nobody was told" in warnings[0]


def test_every_flow_tells():
    from flows.data import data
    from flows.evaluate import evaluate

    for flow in (full, data, evaluate, sweep):
        assert flow.on_completion_hooks == flow.on_failure_hooks == flow.on_crashed_hooks == [notify.notify]
