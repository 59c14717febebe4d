"""What reads bytes of strangers, each with a few inputs to begin with and what must hold whatever becomes of them."""

from __future__ import annotations

import io
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.kit.tars import between, member, pax
from xclr.captions import tablefile, wds
from xclr.errors import DataError
from xclr.files import is_text
from xclr.images.fetch import downloading
from xclr.images.generations import STATUSES
from xclr.images.outcome import Limits, Start
from xclr.images.picture import judge
from xclr.images.read import decode
from xclr.recipe import DataConfig

Check = Callable[[bytes], None]  # raises whatever must not be raised


class Target(NamedTuple):
    """Inputs to begin with, and a check of any, given a folder."""

    corpus: tuple[bytes, ...]
    checking: Callable[[Path], AbstractContextManager[Check]]


def encoded(kind: str, **options: object) -> bytes:
    """A small picture."""
    stream = io.BytesIO()
    Image.radial_gradient("L").resize((24, 16)).convert("P" if kind == "GIF" else "RGB").save(stream, kind, **options)
    return stream.getvalue()


@contextmanager
def pictures(folder: Path) -> Iterator[Check]:
    """What is called ok is read by every reader."""

    def check(data: bytes) -> None:
        for edge in (None, 8):
            judged = judge(data, edge)
            assert judged.columns["status"] in STATUSES
            if judged.columns["status"] == "ok":
                decode(judged.stored or data, 8)

    yield check


@contextmanager
def tars(folder: Path) -> Iterator[Check]:
    """A tar gives text and places that are in it, or is refused by name."""

    def check(data: bytes) -> None:
        path = folder / "x.tar"
        path.write_bytes(data)
        try:
            for record in wds.captions(DataConfig(source="wds", path=path)):
                _, offset, size = record["place"]
                assert is_text(record["caption"] + record["path"]) and 0 <= offset <= offset + size <= len(data)
        except DataError as error:
            assert str(path) in error.message

    yield check


@contextmanager
def tables(folder: Path, ending: str) -> Iterator[Check]:
    """A table gives its rows, or is refused by name."""

    def check(data: bytes) -> None:
        path = folder / f"x{ending}"
        path.write_bytes(data)
        try:
            table = tablefile.open_table(path)
            for _ in tablefile.rows(table, list(table.types)):
                pass
        except DataError as error:
            assert str(path) in error.message

    yield check


@contextmanager
def answers(folder: Path) -> Iterator[Check]:
    """Whatever a server says, the picture has an outcome."""
    said: dict[str, bytes] = {}

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(5)
            head = b""
            with suppress(OSError):
                while b"\r\n\r\n" not in head and (piece := self.request.recv(1 << 16)):
                    head += piece
                self.request.sendall(said.get("now", b""))
                self.request.shutdown(socket.SHUT_WR)

    limits = Limits(("127.0.0.1:*",), connect_s=2, read_s=2, total_s=2, most_bytes=1 << 16, redirects=1, tries=1)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server, downloading(limits) as start:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield partial(_ask, start, f"http://127.0.0.1:{server.server_address[1]}/", said)
        finally:
            server.shutdown()
            thread.join()


def _ask(start: Start, url: str, said: dict[str, bytes], data: bytes) -> None:
    said["now"] = data
    outcome = start(url).result(timeout=60)
    assert outcome.status in STATUSES
    assert is_text(outcome.error or "")


def _parquet() -> bytes:
    stream = io.BytesIO()
    table = {
        "caption": ["a dog", None],
        "image": [b"x", b"y"],
        "tags": [["a"], []],
        "at": pa.array([1, 2], "timestamp[ns]"),
    }
    pq.write_table(pa.table(table), stream)
    return stream.getvalue()


PNG = encoded("PNG")
TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(PNG)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n3;x=y\r\nefg\r\n0\r\n\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Later\r\nRetry-After: 1\r\nContent-Encoding: gzip\r\nX-Robots-Tag: noai\r\n\r\n"
TARGETS = {
    "pictures": Target(
        (*map(encoded, ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")), encoded("JPEG", progressive=True, exif=TURNED)),
        pictures,
    ),
    "tars": Target((between(b""), between(pax(b"path", b"long/x.jpg") + member(b"x.jpg", b"p"))), tars),
    "CSV": Target((b'caption,image\r\n"a ""red"" dog",a.jpg\r\n\xc3\xa9,b.jpg\r\n',), partial(tables, ending=".csv")),
    "JSON lines": Target((b'{"caption": "a", "n": 1e3}\n{"caption": "\\ud83d\\ude00", "n": null}\n',),
                         partial(tables, ending=".jsonl")),
    "Parquet": Target((_parquet(),), partial(tables, ending=".parquet")),
    "answers": Target((HEAD + PNG, CHUNKED, MOVED, BUSY), answers),
}  # fmt: skip
