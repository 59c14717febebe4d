"""The command line `xclr`: as a process of its own, or, where that proves no less, in this one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from flows.cli import main

ROOT = Path(__file__).parents[2]
SCRIPT = str(Path(sys.executable).with_name("xclr"))


class Said(NamedTuple):
    """How a command ended and what it said."""

    returncode: int
    stdout: str
    stderr: str


def command(home: Path, *arguments: str) -> list[str]:
    """The command line as a person types it, for one HOME."""
    return [sys.executable, "-m", "xclr", *arguments, "--home", str(home)]


def start_xclr(home: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A process for one HOME, whose standard error can be read."""
    environment = {**os.environ, **(environment or {})}
    return subprocess.Popen(command(home, *arguments), env=environment, stderr=subprocess.PIPE, text=True)


def run_xclr(*arguments: str, cwd: Path, timeout: float = 600, **environment: str) -> Said:
    """Run the command line in a process, as a person does."""
    done = subprocess.run(
        [sys.executable, "-m", "xclr", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip
    return Said(done.returncode, done.stdout, done.stderr)


def call_xclr(*arguments: str, cwd: Path, **environment: str) -> Said:
    """Run the command line in this process; not for what starts servers or flows, which live as long as a process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        chdir(cwd),
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", ["xclr", *arguments]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = _exit_code()
    return Said(code, out.getvalue(), err.getvalue())


def _exit_code() -> int:
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def succeeds(done: Said) -> Said:
    """The same, with exit code 0."""
    assert done.returncode == 0, done.stderr
    return done


def fails(done: Said, *parts: str) -> None:
    """Exit 1, each part in the message, a remedy, and no traceback."""
    assert done.returncode == 1, done.stderr
    for part in (*parts, "->"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr
