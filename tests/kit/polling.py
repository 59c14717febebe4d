"""Waiting for what another process brings about."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
EVERY_S = 0.1


def until(condition: Callable[[], T], timeout_s: float = 600, tell: Callable[[], str] = str) -> T:
    """Poll for a condition and return what it found; the deadline is for a fault, however slow the machine is.

    tell: what to say of how things stand where it did not come about.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"the condition did not come about\n{tell()}"
        time.sleep(EVERY_S)
    return found
