"""A worker over the smoke run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.worker import Prefect, client_environment, deployed


@pytest.fixture(scope="session")
def prefect(served, tmp_path_factory) -> Iterator[Prefect]:
    """Prefect's command line after work pool, deploy and worker."""
    with deployed(client_environment(served, served.home, tmp_path_factory.mktemp("client"))) as call:
        yield call
