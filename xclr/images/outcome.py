"""What came of a picture, and how hard a download may try; imports nothing that downloads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from xclr.images.picture import Judged


@dataclass(frozen=True)
class Limits:
    """How hard a download tries, and what it may take."""

    allow_hosts: tuple[str, ...] = ()  # name or address, with or without :port, that need not be public
    in_flight: int = 64
    per_host: int = 8
    connect_s: float = 10.0
    read_s: float = 20.0  # between two pieces of a body
    total_s: float = 60.0  # of a try, its redirects included
    most_bytes: int = 20 << 20
    held_bytes: int = 256 << 20  # finished pictures that may wait for those before them
    redirects: int = 5
    tries: int = 2
    backoff_s: float = 1.0
    longest_wait_s: float = 10.0  # a server that asks for more by Retry-After is not asked again
    robots: bool = True  # respect X-Robots-Tag noai and noimageai
    proxy: str | None = None  # http://host:port


@dataclass(frozen=True)
class Outcome:
    """What came of one picture: a status of the images table, and its bytes where that is ok."""

    status: str
    http: int | None = None
    error: str | None = None
    data: bytes = b""
    attempt: int = 1
    host: str = ""  # of a download
    reached: bool = True  # False when no server took the connection, and no name server knew better
    retry_after_s: float | None = None
    judged: Judged | None = None  # what its bytes are

    @property
    def held_bytes(self) -> int:
        """What it holds in memory."""
        return len(self.data) + len(self.judged.stored or b"" if self.judged else b"")


Start = Callable[[str], Future[Outcome]]
