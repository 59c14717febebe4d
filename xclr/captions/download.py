"""A published table of captions, fetched once: resumed after an interruption, size and SHA-256 written beside it."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import aiohttp
import anyio
import httpx

from xclr.address import BlockedError, CheckedConnector, LookupFailedError, open_session, written
from xclr.artifact import sha256_file
from xclr.captions.source import fetched
from xclr.disk import told
from xclr.errors import DataError
from xclr.recipe import DataConfig, host_of
from xclr.store import write_atomically

TRIES, PAUSE_S, REDIRECTS = 5, 1.0, 5
WAIT = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=30.0)
PIECE = 1 << 20
MOST_BYTES = 64 << 30  # of a table; CC12M's has 3 GB
SLOWEST, PATIENCE_S = 1 << 10, 60.0  # bytes a second, over so long
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
MOVED = frozenset({301, 302, 303, 307, 308})
PASSING = (
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
    aiohttp.ClientResponseError,
    LookupFailedError,
    OSError,
)
Progress = Callable[[int, int], None]  # bytes done, bytes in all (0 when nobody says)


class Part(NamedTuple):
    """What an interrupted download left."""

    path: Path
    about: Path  # its validator, which tells whether the file at the address is still the same

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def validator(self) -> str:
        """The server's ETag or date; empty for none."""
        return self.about.read_text() if self.about.exists() else ""


class ServerError(OSError):
    """The server cannot answer now, or not with what it was asked for."""


def fetch(data: DataConfig, home: Path, progress: Progress = lambda done, total: None) -> Path:
    """The file of data.url below HOME, downloaded when it is not there; raises DataError when it cannot be, StoreError
    where its disk takes no more.

    The host of data.url was named by a person and may be private; hosts that it redirects to may not, unless
    data.allow_hosts names them.
    """
    path = fetched(str(data.url), home)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        anyio.run(_download, str(data.url), path, data.reachable, progress)
    except (BlockedError, ValueError, httpx.InvalidURL, *PASSING) as error:
        remedy = "check data.url and run again: what was received stays and is gone on with; or set data.path to a copy"
        where = f"{path.name} cannot be fetched from {host_of(str(data.url))}"
        raise DataError(f"{where}: {type(error).__name__}: {error}", remedy) from error
    note = {"host": host_of(str(data.url)), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
    write_atomically(path.with_name(f"{path.name}.json"), json.dumps(note))
    return path


async def _download(url: str, path: Path, allow: tuple[str, ...], progress: Progress) -> None:
    part = Part(path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.validator"))
    async with open_session(CheckedConnector(allow, httpx.create_ssl_context(), WAIT.sock_connect), WAIT) as session:
        for attempt in range(1, TRIES + 1):
            try:
                await _follow(session, url, part, progress)
                break
            except PASSING:
                if attempt == TRIES:
                    raise
                await anyio.sleep(PAUSE_S * attempt)
    part.path.replace(path)
    part.about.unlink(missing_ok=True)


async def _follow(session: aiohttp.ClientSession, url: str, part: Part, progress: Progress) -> None:
    """Ask, follow redirects, append what comes."""
    for _ in range(REDIRECTS + 1):
        if urlsplit(url).scheme not in {"http", "https"}:
            raise BlockedError(f"{url[:80]} is neither http nor https")
        asked = {"Range": f"bytes={part.size}-", "If-Range": part.validator} if part.size and part.validator else {}
        async with session.get(written(httpx.URL(url)), headers=asked, allow_redirects=False) as answer:
            if answer.status in MOVED and "location" in answer.headers:
                url = urljoin(url, answer.headers["location"])
                continue
            if answer.status >= 500:
                raise ServerError(f"HTTP {answer.status}")
            if answer.status == 416 and asked:  # the part may be whole already, or of another file
                part.path.unlink()
                raise ServerError("HTTP 416")
            if answer.status not in {200, 206}:
                raise ValueError(f"HTTP {answer.status}")
            await _append(answer, part, bool(asked), progress)
            return
    raise ValueError(f"more than {REDIRECTS} redirects")


async def _append(answer: aiohttp.ClientResponse, part: Part, asked: bool, progress: Progress) -> None:
    begun, total = _span(answer, part, asked)
    if begun == 0:
        part.path.unlink(missing_ok=True)
        write_atomically(part.about, answer.headers.get("etag", "") or answer.headers.get("last-modified", ""))
    began = time.monotonic()
    with told(part.path), part.path.open("ab") as stream:
        done, shown = begun, begun
        async for piece in answer.content.iter_any():
            stream.write(piece)
            done += len(piece)
            _check_pace(done, done - begun, time.monotonic() - began)
            if done - shown >= PIECE:
                progress(done, total)
                shown = done
        stream.flush()
        os.fsync(stream.fileno())
    if done < total:
        raise ServerError(f"{done:,} of {total:,} bytes came")
    progress(done, total or done)


def _span(answer: aiohttp.ClientResponse, part: Part, asked: bool) -> tuple[int, int]:
    """Where an answer begins and the whole ends, 0 where nobody says; raises ServerError for a part not asked for.

    The part that is here is gone then, so that the next try asks for all.
    """
    length = answer.headers.get("content-length", "")
    if answer.status == 200:
        return 0, int(length) if length.isdecimal() else 0
    said = RANGE.fullmatch(answer.headers.get("content-range", ""))
    if said is None or not asked or int(said[1]) != part.size:
        part.path.unlink(missing_ok=True)
        raise ServerError(f"a part that was not asked for: {answer.headers.get('content-range', 'no Content-Range')}")
    return part.size, 0 if said[3] == "*" else int(said[3])


def _check_pace(done: int, received: int, took_s: float) -> None:
    """Raise ValueError for a table that is no table, or that would take for ever."""
    if done > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    if took_s > PATIENCE_S and received < SLOWEST * took_s:
        raise ValueError(f"{received:,} bytes came in {took_s:.0f} s")
