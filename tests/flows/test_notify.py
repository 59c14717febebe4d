"""What a notification block is told, by a receiver on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Crashed, Failed

from flows import notify
from flows.full import full
from flows.sweep import sweep
from tests.kit.receiver import Receiver, receiving

BUDGET = "sweep warm may take 96 GPU-hours, more than the 10 allowed -> sweep fewer values or raise --max-gpu-hours"


@pytest.fixture(name="receiver")
def _receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(name="block")
def _block(receiver) -> CustomWebhookNotificationBlock:
    message = {"title": "{{subject}}", "text": "{{body}}"}
    return CustomWebhookNotificationBlock(name="here", url=receiver.url, allow_private_urls=True, json_data=message)


@pytest.mark.parametrize(
    ("state", "parts"),
    [
        (Completed(), ["emoji: Completed"]),
        (Failed(message="pretrain clip seed 0: it failed -> see the log"), ["emoji: Failed", "-> see the log"]),
        (Failed(message=BUDGET), ["more than the 10 allowed"]),
        (Crashed(message="the process was killed"), ["emoji: Crashed", "was killed"]),
    ],
)
def test_the_end_of_a_run_is_told_with_its_reason_and_remedy(state, parts, block, receiver, monkeypatch):
    monkeypatch.setenv("XCLR_NOTIFY", "custom-webhook/here")
    monkeypatch.setattr(notify, "load", lambda name: block)
    assert notify.lacking() is None
    notify.notify(full, FlowRun(id=uuid4(), flow_id=uuid4(), name="emoji"), state)
    (told,) = receiver.got
    assert told["title"] == f"xclr emoji: {state.name}"
    assert all(part in told["text"] for part in parts)


def test_what_cannot_be_told_is_a_warning_and_who_asks_for_nothing_is_told_nothing(block, receiver, monkeypatch):
    run, warnings = FlowRun(id=uuid4(), flow_id=uuid4(), name="emoji"), []

    class Log:
        def warning(self, text, *values):
            warnings.append(text % values)

    monkeypatch.setattr(notify, "flow_run_logger", lambda run, flow: Log())
    monkeypatch.setattr(notify, "load", lambda name: block)
    notify.notify(full, run, Completed())
    assert (receiver.got, warnings) == ([], [])
    monkeypatch.setenv("XCLR_NOTIFY", "custom-webhook/here")
    receiver.status = 500
    notify.notify(full, run, Completed())
    assert len(warnings) == 1 and "nobody was told" in warnings[0]


def test_every_flow_tells():
    from flows.data import data
    from flows.evaluate import evaluate

    for flow in (full, data, evaluate, sweep):
        assert flow.on_completion_hooks == flow.on_failure_hooks == flow.on_crashed_hooks == [notify.notify]
