"""Decoding in processes of its own: a picture that kills its decoder, or somebody who does, costs no other picture."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from json import loads
from pathlib import Path
from typing import IO

import xclr
from xclr.errors import JobError
from xclr.images.outcome import Outcome
from xclr.images.picture import PATIENCE_S, Judged, judge

TRIES = 2  # of a picture whose decoder died
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
# bytes that glibc keeps from picture to picture: fresh pages were a sixth of a small picture's cost


class Workers:
    """Decoders, each a process behind a thread of its own, started when first needed; a context manager."""

    def __init__(self, number: int, edge: int | None, *, apart: bool = False) -> None:
        self.edge, self.apart = edge, apart
        self.threads = ThreadPoolExecutor(number, thread_name_prefix="decoder")
        self.own = threading.local()
        self.started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        for each in self.started:
            each.kill()
        self.threads.shutdown(cancel_futures=True)
        for each in self.started:
            each.communicate()

    @property
    def decode_all(self) -> bool:
        """True when pictures of this machine are decoded by the processes, too: to be smaller, or as strangers'."""
        return self.apart or self.edge is not None

    def here(self, outcome: Outcome) -> Outcome:
        """The outcome with a verdict on its bytes, made in this process."""
        return replace(outcome, judged=judge(outcome.data)) if outcome.status == "ok" else outcome

    def read(self, taken: Callable[[], Outcome]) -> Future[Outcome]:
        """Take a picture's bytes and judge them, soon."""
        return self.threads.submit(lambda: self._finish(taken()))

    def follow(self, download: Future[Outcome]) -> Future[Outcome]:
        """The outcome of a download, judged as soon as it is there."""
        found: Future[Outcome] = Future()

        def arrived(download: Future[Outcome]) -> None:
            if download.cancelled():
                found.cancel()
            elif (error := download.exception()) is not None:
                found.set_exception(error)
            elif download.result().status != "ok":
                found.set_result(download.result())
            else:
                try:
                    self.threads.submit(_settle, found, lambda: self._finish(download.result()))
                except RuntimeError as error:  # nobody waits for it any more, or no thread is to be had
                    found.set_exception(error)

        download.add_done_callback(arrived)
        return found

    def _finish(self, outcome: Outcome) -> Outcome:
        if outcome.status != "ok":
            return outcome
        judged = self._judge(outcome.data)
        return replace(outcome, judged=judged, data=outcome.data if judged.stored is None else b"")

    def _judge(self, data: bytes) -> Judged:
        for _ in range(TRIES):
            process = self._process()
            try:
                return _ask(process, data)
            except (OSError, struct.error, ValueError):
                process.kill()
                process.communicate()
            if process.returncode == -signal.SIGALRM:  # it would take as long again
                return _lost(data, f"not decoded within {PATIENCE_S} s")
        return _lost(data, f"it killed its decoder {TRIES} times")

    def _process(self) -> subprocess.Popen[bytes]:
        """This thread's decoder, started anew when the one before is known to have ended."""
        process: subprocess.Popen[bytes] | None = getattr(self.own, "process", None)
        if process is None or process.returncode is not None:
            command = [sys.executable, "-m", "xclr.images.picture", str(self.edge or 0)]
            environment = {**KEPT, **os.environ, "PYTHONPATH": str(Path(xclr.__file__).parents[1])}
            process = _started(command, environment)
            self.own.process = process
            self.started.append(process)
        return process


def _lost(data: bytes, why: str) -> Judged:
    return Judged({"bytes": len(data), "status": "decode", "error": why})


def _settle(found: Future[Outcome], work: Callable[[], Outcome]) -> None:
    """Set a future to what comes of work, whatever that is: who waits for it has no other way to learn of an end."""
    try:
        found.set_result(work())
    except BaseException as error:  # noqa: BLE001 - raised again for whoever waits
        found.set_exception(error)


def _started(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A decoder that has answered once, so that what keeps all from starting is not blamed on pictures."""
    pipe = subprocess.PIPE
    process: subprocess.Popen[bytes] | None = None
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=1 << 17, env=environment)
        _ask(process, b"")
    except (OSError, struct.error, ValueError) as error:
        if process:
            process.kill()
            process.communicate()
        remedy = (
            f"see what {' '.join(command)} says, and how much memory and how many processes (ulimit -u) and open files "
            "(ulimit -n) there may be; then run again: finished shards stay"
        )
        raise JobError(f"the process that decodes pictures does not start ({error})", remedy) from error
    return process


def _ask(process: subprocess.Popen[bytes], data: bytes) -> Judged:
    """A picture's verdict; raises OSError, struct.error or ValueError when the process ends before it has answered."""
    asked, answers = _streams(process)
    asked.write(struct.pack("!I", len(data)) + data)
    asked.flush()
    sizes = struct.unpack("!II", answers.read(8))
    said, stored = (answers.read(size) for size in sizes)
    if len(said) + len(stored) < sum(sizes):
        raise OSError("the decoder ended amid an answer")
    columns, suffix, is_stored = loads(said)
    return Judged(columns, suffix, stored if is_stored else None)


def _streams(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout
