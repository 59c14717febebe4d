"""Pictures of a source as bytes: as they are, from a file, or downloaded, in order and within a bounded window."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from xclr.captions import Picture
from xclr.errors import DataError
from xclr.images.fetch import Fetched, Fetcher, Limits

WINDOW = 256  # pictures begun and not yet taken
DOWN = frozenset({"dns", "connection"})  # statuses of a network that is down
FIRST, IN_A_ROW = 50, 200  # so many of them from the start, or later, end the stage


class Reader:
    """Reads pictures of all kinds; a context manager."""

    def __init__(self, allow_hosts: Iterable[str] = (), limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.fetcher = Fetcher(allow_hosts, self.limits)
        self.started = False
        self.stack = ExitStack()
        self.down, self.once_up = 0, False

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def read(self, pictures: Iterable[Picture]) -> Iterator[Fetched]:
        """The outcome of every picture, in order; raises DataError when the network is down."""
        window: deque[Picture | Future[Fetched]] = deque()
        for picture in pictures:
            window.append(self._begin(picture) if isinstance(picture, str) else picture)
            if len(window) == WINDOW:
                yield self._outcome(window.popleft())
        while window:
            yield self._outcome(window.popleft())

    def _begin(self, url: str) -> Future[Fetched]:
        if not self.started:  # a source without addresses never opens the network
            self.stack.enter_context(self.fetcher)
            self.started = True
        return self.fetcher.submit(url)

    def _outcome(self, picture: Picture | Future[Fetched]) -> Fetched:
        if isinstance(picture, Future):
            return self._watched(picture.result())
        if isinstance(picture, Path):
            return _from_file(picture, self.limits.max_bytes)
        assert not isinstance(picture, str)
        return Fetched("ok", data=picture)

    def _watched(self, found: Fetched) -> Fetched:
        """Count failures that follow one another: a network that is down must not become a table of lost pictures."""
        self.down = self.down + 1 if found.status in DOWN else 0
        self.once_up = self.once_up or self.down == 0
        if self.down >= (IN_A_ROW if self.once_up else FIRST):
            raise DataError(
                f"the network seems to be down: {self.down} downloads in a row failed, the last with {found.error}",
                "run the recipe again when it is up: finished shards stay",
            )
        return found


def _from_file(path: Path, max_bytes: int) -> Fetched:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            return Fetched("too_large", error=f"{size} bytes, more than {max_bytes}")
        return Fetched("ok", data=path.read_bytes())
    except OSError as error:  # it was there when the run was planned
        return Fetched("decode", error=f"{type(error).__name__}: {error}"[:200])
