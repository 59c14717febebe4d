"""Being asked to stop: a flag that signals set, and a note that a sweep leaves; loops read both at step boundaries."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

WEAK = "weak.txt"  # beside a training that is to stop, why: others of its sweep are better
SIGNALS = (signal.SIGTERM, signal.SIGUSR2)  # of an operator and of a preemption


class StopFlag:
    """True once SIGTERM or SIGUSR2 arrived between entering and leaving (main thread only).

    `number` is then the signal's. Leaving puts the handlers back that were there: submitit's requeues a job at once, so
    it may see the signal only when everything is saved (`xclr.job`).
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopFlag:
        self._before = {number: signal.signal(number, self._raise) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        return self.number is not None

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if self.number != signal.SIGUSR2:  # a preemption sends both, and only this one has the job requeued
            self.number = number
