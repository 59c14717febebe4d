"""Processes of this machine by names that are not used again, and the time."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

JobId = str  # "<host>/<pid>/<birth>", because a pid is used again, or "slurm/<number>[_<element>]"
PROCESS = re.compile(r"[^/]+/[0-9]+/([0-9]+|[0-9a-f-]+\.[0-9]+)")
PROC = Path("/proc")
STARTTIME = 19  # of /proc/<pid>/stat's fields after the name, man 5 proc


def this_process() -> JobId:
    """The id of the calling process."""
    return process_id(os.getpid())


def process_id(pid: int) -> JobId:
    """The id of a process of this machine."""
    return f"{socket.gethostname()}/{pid}/{_birth(pid) or _start_ms(pid)}"


def is_process(job: JobId) -> bool:
    """True for the id of a process, of whatever machine."""
    return PROCESS.fullmatch(job) is not None


def is_of_this_machine(job: JobId) -> bool:
    """True when the process of an id would be seen here."""
    return is_process(job) and job.rsplit("/", 2)[0] == socket.gethostname()


def find_process(job: JobId) -> psutil.Process | None:
    """The live process of an id, on this machine."""
    if not is_of_this_machine(job):
        return None
    _, pid, born = job.rsplit("/", 2)
    try:
        process = psutil.Process(int(pid))
        same = abs(_start_ms(process.pid) - int(born)) < 1000 if born.isdecimal() else _birth(process.pid) == born
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _birth(pid: int) -> str | None:
    """The boot and the clock tick at which a process began, which setting the clock changes not; None without /proc."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except FileNotFoundError:
        return None
    return f"{boot}.{int(fields[STARTTIME])}"


def _start_ms(pid: int) -> int:
    """When a process began, in ms since the epoch: as psutil computes it from the time of booting, by today's clock.

    What names written before 2026-11-28 hold, and those of machines without /proc.
    """
    return int(psutil.Process(pid).create_time() * 1000)


def processes_of(job: JobId) -> Iterator[psutil.Process]:
    """A job's process and all below it."""
    process = find_process(job)
    if process is not None:
        with suppress(psutil.NoSuchProcess):
            yield from process.children(recursive=True)
        yield process


def send(process: psutil.Process, number: int) -> None:
    """Send a process a signal, unless it has ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)
