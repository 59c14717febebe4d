"""The bytes of every picture in the order of the rows, however each is given; downloads run ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

from xclr.errors import DataError
from xclr.files import Inside, Picture
from xclr.images.outcome import Limits, Outcome, Start
from xclr.images.workers import Workers

Given = bytes | Path | Inside | None
AHEAD = 32  # rows looked ahead for each download in flight: those that time out keep no others waiting


class Probe:
    """Whether there is a network: asks again for an address that a server answered for, of rows ahead too."""

    def __init__(self) -> None:
        self.start: Start | None = None
        self.answered = ""  # the last such address

    def watch(self, url: str, download: Future[Outcome]) -> None:
        """Take note of an address once its server answers."""

        def note(download: Future[Outcome]) -> None:
            if not download.cancelled() and download.exception() is None and download.result().http is not None:
                self.answered = url

        download.add_done_callback(note)

    def __call__(self) -> bool:
        """True when that server answers now; False when none ever did."""
        if self.start is None or not self.answered:
            return False
        return self.start(self.answered).result().http is not None


def obtain(
    pictures: Iterable[Picture], limits: Limits, workers: Workers, probe: Probe | None = None
) -> Generator[Outcome, None, None]:
    """One judged outcome a picture, in order. Memory: limits.held_bytes and in_flight pictures, never a shard.

    Downloads start once the first URL comes, and end with the iterator; `probe` watches them.
    """
    probe = probe or Probe()
    window = Window(limits, workers)
    with ExitStack() as stack:
        for picture in pictures:
            if isinstance(picture, str):
                if probe.start is None:
                    from xclr.images.fetch import downloading  # brings httpx

                    probe.start = stack.enter_context(downloading(limits))
                    stack.callback(window.cancel)
                begun = probe.start(picture)
                probe.watch(picture, begun)
                window.download(begun)
            else:
                window.add(picture)
            while window.is_due():
                yield window.pop()
        while window.entries:
            yield window.pop()


class Window:
    """Pictures in the order of the rows: given, under way, or here and waiting for those before them."""

    def __init__(self, limits: Limits, workers: Workers) -> None:
        self.limits, self.workers = limits, workers
        self.entries: deque[Given | Future[Outcome]] = deque()
        self.running: set[Future[Outcome]] = set()
        self.finished: SimpleQueue[Future[Outcome]] = SimpleQueue()  # whether or not they were taken meanwhile
        self.downloads: set[Future[Outcome]] = set()
        self.held_bytes = 0  # of the entries that are here

    def download(self, begun: Future[Outcome]) -> None:
        """Append a picture that is on its way."""
        self.downloads.add(begun)
        begun.add_done_callback(self.downloads.discard)
        self._follow(self.workers.follow(begun))

    def add(self, entry: Given) -> None:
        """Append a picture of this machine."""
        if self.workers.decode_all:
            self._follow(self.workers.read(lambda: taken(entry, self.limits.most_bytes)))
            return
        self.entries.append(entry)
        self.held_bytes += len(entry) if isinstance(entry, bytes) else 0

    def _follow(self, entry: Future[Outcome]) -> None:
        self.entries.append(entry)
        self.running.add(entry)
        entry.add_done_callback(self.finished.put)

    def is_due(self) -> bool:
        """True when the first is to be taken; False, once a download may start, when more may be added before."""
        if not self.entries or not isinstance(self.entries[0], Future):
            return bool(self.entries)
        while len(self.running) >= self.limits.in_flight or not self.finished.empty():
            each = self.finished.get()
            if each in self.running:
                self.running.remove(each)
                self.held_bytes += each.result().held_bytes
        return len(self.entries) > AHEAD * self.limits.in_flight or self.held_bytes > self.limits.held_bytes

    def pop(self) -> Outcome:
        """The first picture's outcome, waited for if need be."""
        entry = self.entries.popleft()
        if not isinstance(entry, Future):
            self.held_bytes -= len(entry) if isinstance(entry, bytes) else 0
            return self.workers.here(taken(entry, self.limits.most_bytes))
        outcome = entry.result()
        if entry in self.running:
            self.running.remove(entry)
        else:
            self.held_bytes -= outcome.held_bytes
        return outcome

    def cancel(self) -> None:
        """End the downloads that nobody will take."""
        for each in tuple(self.downloads):
            each.cancel()


class Breaker:
    """Stops a run whose downloads all fail because the network is down, before it marks every picture as lost."""

    FIRST, LATER, FEW = 50, 200, 5  # failures in a row at the start, and later; hosts that tell a network from a host

    def __init__(self, probe: Callable[[], bool] = lambda: False) -> None:
        self.probe = probe  # whether there is a network, though a row of downloads says otherwise
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
            if self.probe():
                self.reached, self.in_a_row, self.failing = True, 0, set()
                return
            last = f"the last, of {outcome.host}: {outcome.status}, {outcome.error}"
            raise DataError(
                f"{self.in_a_row} downloads in a row reached no server ({last})",
                "mend the network or its name server and run again: finished shards stay. If these hosts are gone for "
                "good, remove their rows",
            )


def _add(hosts: set[str], host: str, most: int) -> None:
    if len(hosts) < most:
        hosts.add(host)


def taken(entry: Given, most_bytes: int) -> Outcome:
    """A picture of this machine as an outcome, its bytes held to the limit wherever they stand."""
    if isinstance(entry, Path):
        return read(entry, most_bytes)
    if isinstance(entry, Inside):
        return read_inside(entry, most_bytes)
    if entry is not None and len(entry) > most_bytes:
        return Outcome("too_large", error=f"larger than {most_bytes:,} bytes")
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


def read_inside(place: Inside, most_bytes: int) -> Outcome:
    """Part of a file as an outcome."""
    if place.size > most_bytes:
        return Outcome("too_large", error=f"larger than {most_bytes:,} bytes")
    try:
        with place.path.open("rb") as file:
            file.seek(place.offset)
            data = file.read(place.size)
    except OSError as error:
        return Outcome("decode", error=f"{place.path}: {error}")
    if len(data) < place.size:
        return Outcome("decode", error=f"{place.path} ends before byte {place.offset + place.size:,}")
    return Outcome("ok", data=data)
