"""Ctrl-C while a flow runs: once stops the run and leaves its jobs, twice within five seconds ends them too."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flows.context import current
from infra.cancel import cancel_run
from infra.run import Run
from xclr.errors import XclrError

GRACE_S = 5


@contextmanager
def stopping_on_ctrl_c() -> Iterator[None]:
    """Answer Ctrl-C from a thread of its own.

    The main thread waits inside Prefect. A Python signal handler would run there only when that wait is interrupted,
    and it never is once some package has set a handler that restarts system calls (Polars does, and MLflow imports
    it where it is installed). The wake-up descriptor is written at once, whoever gets the signal.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    answering = threading.Thread(target=_answer, args=(reader,), daemon=True)
    answering.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, before)
        os.close(writer)
        answering.join()  # it may be ending jobs


def _answer(reader: int) -> None:
    while _next_is_interrupt(reader):
        runs = list(current)
        if not runs or any(run.stopping.is_set() for run in runs):
            os._exit(130)  # not the first time: leave at once
        print("\nstopping; jobs go on by themselves. Ctrl-C once more ends them too.", file=sys.stderr, flush=True)
        if select.select([reader], [], [], GRACE_S)[0] and _next_is_interrupt(reader):
            _cancel(runs)
        for run in runs:
            run.stopping.set()


def _cancel(runs: Sequence[Run]) -> None:
    try:
        ended = sum(len(cancel_run(run.store.home, run.record).ended) for run in runs)
        print(f"{ended} job{'s' * (ended != 1)} ended", file=sys.stderr, flush=True)
    except XclrError as error:
        print(f"xclr: {error}", file=sys.stderr, flush=True)


def _next_is_interrupt(reader: int) -> bool:
    """Wait for the next Ctrl-C; False when the flow is over."""
    while number := os.read(reader, 1):
        if number[0] == signal.SIGINT:
            return True
    return False
