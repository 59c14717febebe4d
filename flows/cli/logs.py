"""The command `xclr logs`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Home
from xclr.printable import printable

if TYPE_CHECKING:
    from infra.home.status import Job

FOLLOW_S = 0.3


def logs(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="a job's id or number (4711, 4711_3), a stage's name, or a digest")
    ],
    follow: Annotated[
        bool, typer.Option("--follow", help="wait for the job to begin, and go on until it ends")
    ] = False,
    rank: Annotated[int, typer.Option(min=0, help="of which rank")] = 0,
    lines: Annotated[int | None, typer.Option(min=0, help="only the last so many lines")] = None,
    home: Home = None,
) -> None:
    """Print the log of a job; its path goes to standard error."""
    from flows.context import home_folder
    from infra.home.status import find_job
    from xclr.errors import StoreError

    found = find_job(home_folder(home), job)
    if found.entry.log is None:
        print(f"{found.entry.stage} runs in the run's own process and has no log; see {found.out}", file=sys.stderr)
        return
    path = found.executor.log(found.entry, job, rank)
    print(path, file=sys.stderr)
    try:
        if follow:
            _wait_for_log(path, found)
        _print_log(path, found, follow, lines)
    except FileNotFoundError as error:
        remedy = f"it begins when the job does; see xclr status, and {path.parent}"
        raise StoreError(f"{path} is not there", remedy) from error
    except KeyboardInterrupt:
        return


def _wait_for_log(path: Path, job: Job) -> None:
    said = ""
    while not path.exists() and not _is_over(job):
        line = "the job waits" + (f": {job.seen.reason}" if job.seen and job.seen.reason else "")
        if line != said:
            print(line, file=sys.stderr, flush=True)
            said = line
        time.sleep(FOLLOW_S)
        job = _again(job)


def _print_log(path: Path, job: Job, follow: bool, lines: int | None) -> None:
    from collections import deque

    with path.open(errors="replace") as stream:
        if lines is None:
            sys.stdout.writelines(map(printable, stream))
        else:
            sys.stdout.writelines(map(printable, deque(stream, maxlen=lines)))
        sys.stdout.flush()
        if follow:
            for text in _more(stream, job):
                print(printable(text), end="", flush=True)


def _more(stream: Iterable[str], job: Job) -> Iterator[str]:
    """What is written from now on, until the job has ended and all is read."""
    while True:
        over = _is_over(_again(job))
        yield from stream
        if over:
            return
        time.sleep(FOLLOW_S)


def _again(job: Job) -> Job:
    """The same job as it stands now."""
    from infra.home.status import job_of
    from infra.ledger import Book
    from xclr.store import Store

    attempts = Book(Store.of(job.out).home).attempts(job.entry.digest)
    return next((job_of(each, job.out) for each in attempts if each.attempt == job.entry.attempt), job)


def _is_over(job: Job) -> bool:
    from infra.ledger import LIVE

    return job.state not in LIVE
