"""Processes of this machine by names that are not used again, and the time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import psutil

JobId = str  # "<host>/<pid>/<start time in ms>", because a pid is used again, or "slurm/<number>[_<element>]"


def this_process() -> JobId:
    """The id of the calling process."""
    return process_id(os.getpid())


def process_id(pid: int) -> JobId:
    """The id of a process of this machine."""
    return f"{socket.gethostname()}/{pid}/{int(psutil.Process(pid).create_time() * 1000)}"


def is_of_this_machine(job: JobId) -> bool:
    """True when the process of an id would be seen here."""
    return job.count("/") == 2 and job.rsplit("/", 2)[0] == socket.gethostname()


def find_process(job: JobId) -> psutil.Process | None:
    """The live process of an id, on this machine."""
    if not is_of_this_machine(job):
        return None
    _, pid, created = job.rsplit("/", 2)
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() * 1000 - int(created)) < 1000
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


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
