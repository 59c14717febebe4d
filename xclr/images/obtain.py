"""The bytes of every picture in the order of the rows, however each is given; downloads run ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

from xclr.datafiles import Picture
from xclr.errors import DataError
from xclr.images.fetch import Limits, Outcome, Start, downloading

AHEAD = 4  # rows looked ahead for each download in flight
HELD_BYTES = 256 << 20  # finished pictures that may wait for those before them


def obtain(pictures: Iterable[Picture], limits: Limits) -> Generator[Outcome, None, None]:
    """One outcome a picture, in order. Memory: HELD_BYTES and what is in flight, never a shard.

    Downloads start once the first URL comes, and end with the iterator.
    """
    window: deque[Picture | Future[Outcome]] = deque()
    with ExitStack() as stack:
        start: Start | None = None
        for picture in pictures:
            if isinstance(picture, str) and start is None:
                start = stack.enter_context(downloading(limits))
                stack.callback(_cancel, window)
            window.append(start(picture) if isinstance(picture, str) and start else picture)
            while window and _is_due(window, limits):
                yield _outcome(window.popleft(), limits)
        while window:
            yield _outcome(window.popleft(), limits)


class Breaker:
    """Stops a run whose downloads all fail because the network is down, before it marks every picture as lost."""

    FIRST, LATER, FEW = 50, 200, 5  # failures in a row at the start, and later; hosts that tell a network from a host

    def __init__(self) -> None:
        self.reached = False  # any server, ever
        self.in_a_row = 0
        self.hosts: set[str] = set()  # of all downloads, up to FEW
        self.failing: set[str] = set()  # of those in a row, up to FEW

    def watch(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """The same outcomes; raises DataError when the network must be down."""
        for outcome in outcomes:
            if outcome.host and outcome.status != "blocked":  # which says nothing of the network
                self._note(outcome)
            yield outcome

    def _note(self, outcome: Outcome) -> None:
        _add(self.hosts, outcome.host, self.FEW)
        if outcome.reached:
            self.reached, self.in_a_row, self.failing = True, 0, set()
            return
        self.in_a_row += 1
        _add(self.failing, outcome.host, self.FEW)
        enough = self.in_a_row >= (self.LATER if self.reached else self.FIRST)
        # one dead host among many is no dead network, however many of its pictures stand side by side
        if enough and len(self.failing) == len(self.hosts):
            last = f"the last, of {outcome.host}: {outcome.status}, {outcome.error}"
            raise DataError(
                f"{self.in_a_row} downloads in a row reached no server ({last})",
                "mend the network or its name server and run again: finished shards stay. If these hosts are gone for "
                "good, remove their rows",
            )


def _add(hosts: set[str], host: str, most: int) -> None:
    if len(hosts) < most:
        hosts.add(host)


def _outcome(entry: Picture | Future[Outcome], limits: Limits) -> Outcome:
    if isinstance(entry, Future):
        return entry.result()
    if isinstance(entry, Path):
        return read(entry, limits.most_bytes)
    assert not isinstance(entry, str)
    return Outcome("ok", data=entry or b"")


def read(path: Path, most_bytes: int) -> Outcome:
    """The content of a file as an outcome: a file that is gone or no file holds nothing to decode."""
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return Outcome("decode", error=f"no file {path}")
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        return Outcome("decode", error=f"{path}: {error}")
    if len(data) > most_bytes:
        return Outcome("too_large", error=f"{path} is larger than {most_bytes:,} bytes")
    return Outcome("ok", data=data)


def _is_due(window: Sequence[Picture | Future[Outcome]], limits: Limits) -> bool:
    """True when the first is here, or is to be waited for because no more may be asked meanwhile."""
    return (
        not isinstance(window[0], Future)
        or len(window) > AHEAD * limits.in_flight
        or sum(map(_size, window)) > HELD_BYTES
    )


def _size(entry: Picture | Future[Outcome]) -> int:
    if isinstance(entry, Future):
        return len(entry.result().data) if entry.done() else 0
    return len(entry) if isinstance(entry, bytes) else 0


def _cancel(window: Iterable[Picture | Future[Outcome]]) -> None:
    for entry in window:
        if isinstance(entry, Future):
            entry.cancel()
