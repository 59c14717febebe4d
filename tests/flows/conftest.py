"""A worker over the smoke run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.kit.receiver import Receiver, receiving
from tests.kit.worker import Prefect, client_environment, deployed

SAVE = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock

message = {"title": "{{subject}}", "text": "{{body}}"}
block = CustomWebhookNotificationBlock(name="lab", url=sys.argv[1], allow_private_urls=True, json_data=message)
block.save("lab")
"""


@pytest.fixture(scope="session")
def told() -> Iterator[Receiver]:
    """What the runs of the worker tell who is to be told."""
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def prefect(served, told, tmp_path_factory) -> Iterator[Prefect]:
    """Prefect's command line after work pool, deploy and worker, whose runs tell a block of Prefect how they end."""
    environment = client_environment(served, served.home, tmp_path_factory.mktemp("client"))
    environment["XCLR_NOTIFY"] = "custom-webhook/lab"
    subprocess.run([sys.executable, "-c", SAVE, told.url], env=environment, check=True)
    with deployed(environment) as call:
        yield call
