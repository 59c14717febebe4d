"""An empty HOME."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.recipes import CLUSTER, TINY
from tests.kit.runs import open_run

__all__ = ["CLUSTER", "TINY", "open_run"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty HOME."""
    return tmp_path / "home"
