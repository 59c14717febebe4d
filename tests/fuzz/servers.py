"""What reads the answers of servers of strangers, and what must hold whatever they say."""

from __future__ import annotations

import math
import socket
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.fuzz.target import Check
from xclr.captions import download
from xclr.errors import DataError
from xclr.files import is_text
from xclr.images.fetch import downloading
from xclr.images.generations import STATUSES
from xclr.images.outcome import Limits
from xclr.recipe import DataConfig

LIMITS = Limits(("127.0.0.1:*",), connect_s=2, read_s=2, total_s=2, most_bytes=1 << 16, redirects=1, tries=1)
WAITS = b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\nRetry-After: %b\r\n\r\n"


@contextmanager
def saying(said: dict[str, bytes]) -> Iterator[str]:
    """The address of a server that answers every request with what is said now."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(5)
            head = b""
            with suppress(OSError):
                while b"\r\n\r\n" not in head and (piece := self.request.recv(1 << 16)):
                    head += piece
                self.request.sendall(said["now"])
                self.request.shutdown(socket.SHUT_WR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def pictures(folder: Path, around: bytes = b"%b") -> Iterator[Check]:
    """Whatever a server says, the picture has an outcome."""
    said: dict[str, bytes] = {}
    with saying(said) as url, downloading(LIMITS) as start:

        def check(data: bytes) -> None:
            said["now"] = around % data
            outcome = start(url).result(timeout=60)
            assert outcome.status in STATUSES
            assert is_text(outcome.error or "")
            assert outcome.retry_after_s is None or 0 <= outcome.retry_after_s < math.inf

        yield check


@contextmanager
def tables(folder: Path) -> Iterator[Check]:
    """A table is what was sent, or is refused by the name of its host; and a part that stays is gone on with."""
    said: dict[str, bytes] = {}
    with saying(said) as url, pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "PAUSE_S", 0.0)

        def check(data: bytes) -> None:
            said["now"] = data
            with tempfile.TemporaryDirectory(dir=folder) as home:
                try:
                    got = download.fetch(DataConfig(source="cc12m", url=url), Path(home)).read_bytes()
                    assert b"chunked" in data.lower() or got in data
                except DataError as error:
                    assert "127.0.0.1" in error.message

        yield check
