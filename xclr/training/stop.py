"""Being asked to stop: a flag that signals set and the loop reads at step boundaries."""

from __future__ import annotations

import signal
from types import FrameType


class Stopped(Exception):  # noqa: N818
    """Training stopped at a step boundary because it was asked to; its checkpoint is on disk."""


class StopFlag:
    """True once SIGTERM arrived."""

    def __init__(self) -> None:
        self.raised = False

    def install(self) -> StopFlag:
        """Listen to SIGTERM (main thread only)."""
        signal.signal(signal.SIGTERM, self._raise)
        return self

    def __call__(self) -> bool:
        return self.raised

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.raised = True
