"""Commands in a terminal of their own, as a person has them: what they show, and how soon something."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
from rich.cells import cell_len

COLUMNS, ROWS = 80, 24
HOME = "\x1b[H"  # the cursor's, whence a screen is drawn anew
CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


class Shown(NamedTuple):
    """How a command ended, what stood on its terminal, and what it had computed, in s, when the first of it came."""

    returncode: int
    stdout: str
    first_s: float

    @property
    def lines(self) -> list[str]:
        """The lines; what is drawn over itself is several."""
        return [line.rstrip() for line in re.split(r"[\r\n]+", self.stdout) if line.strip()]

    @property
    def wide(self) -> list[str]:
        """Lines wider than the terminal, but for what is there to be copied: addresses and paths."""
        return [line for line in self.lines if cell_len(line) > COLUMNS and "/" not in line]


def in_terminal(
    command: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 600,
    until: str | None = None,
) -> Shown:
    """Run a command where nobody answers; Ctrl-C ends one that shows `until`, and time one that waits."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (ROWS, COLUMNS))
    around = {name: value for name, value in (environment or os.environ).items() if name not in {"COLUMNS", "CI"}}
    process = subprocess.Popen(
        command, cwd=cwd, env={**around, "TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        text, first_s = _read(ours, process, time.monotonic() + timeout_s, until)
        return Shown(process.wait(timeout=60), text, first_s)
    finally:
        os.close(ours)
        process.kill()
        process.wait()


def _read(stream: int, process: subprocess.Popen[bytes], deadline: float, until: str | None) -> tuple[str, float]:
    """All that is shown until nobody holds the other side, and what had been computed at the first of it."""
    raw, first_s = b"", float("inf")
    while part := _next(stream, process, deadline):
        if not raw:
            first_s = _computed(process)
        raw += part
        if until is not None and until.encode() in raw:
            os.killpg(process.pid, signal.SIGINT)
            until = None
    return CONTROL.sub("", raw.decode().replace(HOME, "\n")), first_s


def _next(stream: int, process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """The next that is shown, empty at the end; a process is ended when its time is over."""
    if not select.select([stream], [], [], max(0, deadline - time.monotonic()))[0]:
        os.killpg(process.pid, signal.SIGKILL)
    try:
        return os.read(stream, 65536)
    except OSError:  # EIO: nobody holds the other side
        return b""


def _computed(process: subprocess.Popen[bytes]) -> float:
    """Seconds of a core that a process and its children have had: its seconds where nothing else runs."""
    return sum(psutil.Process(process.pid).cpu_times()[:4])
