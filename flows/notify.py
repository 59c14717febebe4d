"""Who is told that a run ended: the notification block of Prefect that XCLR_NOTIFY names, such as slack-webhook/lab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
from prefect.exceptions import PrefectException
from prefect.logging.loggers import flow_run_logger
from prefect.utilities.asyncutils import run_coro_as_sync
from prefect.utilities.urls import url_for

from xclr.environment import setting

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from prefect import Flow, State
    from prefect.blocks.abstract import NotificationBlock
    from prefect.client.schemas.objects import FlowRun

VARIABLE = "XCLR_NOTIFY"
FAULTS = (httpx.HTTPError, PrefectException, ValueError, OSError)  # of a block that is not there, or of whom it asks


def notify(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Tell how a flow run ended; a notification that cannot be sent is a warning."""
    name = setting(VARIABLE)
    if not name:
        return
    try:
        send(load(name), flow_run, state)
    except FAULTS as error:
        flow_run_logger(flow_run, flow).warning(
            "%s=%s: nobody was told: %s", VARIABLE, name, str(error).partition("\n")[0]
        )


def lacking() -> str | None:
    """A line where the block that is to be told at the end is not there now."""
    name = setting(VARIABLE)
    if not name:
        return None
    try:
        load(name)
    except FAULTS as error:
        why = str(error).partition("\n")[0]
        return f"{VARIABLE}={name}: nobody will be told how this run ends: {why}"
    return None


def load(name: str) -> NotificationBlock:
    """The block of a type and a name, as TYPE/NAME; raises ValueError where there is none that sends anything."""
    import prefect.blocks.notifications  # noqa: F401 - else its blocks are of unknown types
    from prefect.blocks.abstract import NotificationBlock
    from prefect.blocks.core import Block

    found = Block.load(name)
    if not isinstance(found, NotificationBlock):
        raise ValueError(f"{name} sends no notifications")
    return found


def send(block: NotificationBlock, flow_run: FlowRun, state: State[Any]) -> None:
    """What is told: the run, how it ended, why with the remedy, and where it is seen."""
    lines = [f"{flow_run.name}: {state.name}", state.message or "", url_for(flow_run) or ""]
    sent: Coroutine[Any, Any, None] | None = block.notify(
        "\n".join(filter(None, lines)), subject=f"xclr {flow_run.name}: {state.name}"
    )
    if sent is not None:  # where Prefect takes its caller for asynchronous
        run_coro_as_sync(sent)
