"""The one reader of tars: plain ones, header by header, of which nothing is lost without a word."""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import SEEK_END
from pathlib import Path
from tarfile import BLOCKSIZE, TarInfo
from typing import BinaryIO

from xclr.errors import DataError

EXTENSIONS = (b"x", b"g", b"X", b"L", b"K")  # headers that say more of the one that follows
PIECE = 1 << 20
REMEDY = "it must be an uncompressed tar that was copied whole: fetch it again, or give the unpacked folder"
LIES = "a header in it lies"


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A tar for `entries`; raises DataError for what is no file, and for what `entries` finds while it is open."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, for ever
            raise tarfile.ReadError("it is no file")
        with path.open("rb") as stream:
            yield stream
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read as a tar: {error}", REMEDY) from error


def entries(tar: BinaryIO, within: TarInfo | None = None) -> Iterator[TarInfo | None]:
    """The headers of an open tar, or of the one that lies at an entry of it, places being those in the file.

    None stands for a header that lies, after which reading goes on. Raises TarError for what is no tar, is damaged,
    ends before its end blocks, or goes on after them.
    """
    end = tar.seek(0, SEEK_END) if within is None else within.offset_data + within.size
    following: int | None = 0 if within is None else within.offset_data
    while following is not None:
        following = yield from _Span(tar, end).entries_from(following)


def files(tar: BinaryIO, within: TarInfo | None = None) -> Iterator[TarInfo]:
    """The files alone, folders passed over; raises TarError for links, devices and headers that lie, too."""
    for entry in entries(tar, within):
        if entry is None or entry.issparse() or not (entry.isdir() or entry.isreg()):
            raise tarfile.ReadError(f"{entry.name} is a link, a sparse file or a device" if entry else LIES)
        if entry.isreg():
            yield entry


@dataclass(frozen=True)
class _Span:
    """Part of a file: what lies before a place."""

    stream: BinaryIO
    end: int

    def entries_from(self, place: int) -> Generator[TarInfo | None, None, int | None]:
        """Those from a header on; where to go on after a header that lies, None at the end."""
        last = place
        self._check_end(place)
        self.stream.seek(place)
        try:
            with tarfile.open(fileobj=self.stream, mode="r:", encoding="utf-8") as tar:
                while entry := tar.next():
                    tar.members.clear()  # type: ignore[attr-defined] # a kilobyte for each of a million files
                    self._check(entry, place, tar.offset)
                    yield entry
                    last, place = place, tar.offset
                    self._check_end(place)
        except (tarfile.TarError, OSError, EOFError):
            raise
        except Exception:  # noqa: BLE001 - tarfile raises what it likes on numbers, names and chains that are none
            yield None
            return self._after(place)
        if not any(self._block(place)):
            self._check_rest(place)
            return None
        following = self._after(last)  # tarfile ends without a word where it expects a header and finds none
        if following == place:
            raise tarfile.ReadError(f"no header at byte {place:,}")
        yield None
        return following

    def _check(self, entry: TarInfo, place: int, following: int) -> None:
        """Raise ValueError for an entry that does not advance (CVE-2025-8194), or lies beyond the end."""
        stored = 0 if entry.issparse() else entry.size
        if not place < min(following, entry.offset_data + entry.size) or entry.offset_data + stored > self.end:
            raise ValueError("a size that cannot be")

    def _check_end(self, place: int) -> None:
        """Raise ReadError for a tar that has no header at a place, nor the zeros that end one."""
        if place + BLOCKSIZE > self.end:
            raise tarfile.ReadError(f"it ends at byte {self.end:,}, without the blocks that end a tar")

    def _block(self, place: int) -> bytes:
        """The header at a place; raises as `_check_end` does."""
        self._check_end(place)
        self.stream.seek(place)
        return self.stream.read(BLOCKSIZE)

    def _check_rest(self, place: int) -> None:
        """Raise ReadError where more follows than the zeros that end a tar: it was joined of several, or damaged."""
        self.stream.seek(place)
        while place < self.end:
            piece = self.stream.read(min(PIECE, self.end - place))
            if any(piece):
                raise tarfile.ReadError(f"more follows the end that is at byte {place:,}: a damaged block, or several")
            place += len(piece) or self.end

    def _after(self, place: int) -> int | None:
        """The place behind the entry at a place, extensions of its header included; raises ReadError beyond the end."""
        while True:
            header = TarInfo.frombuf(self._block(place), "utf-8", "surrogateescape")
            place += BLOCKSIZE * (1 + max(0, -(-header.size // BLOCKSIZE)))
            if place > self.end:
                raise tarfile.ReadError("unexpected end of data")
            if header.type not in EXTENSIONS:
                return place
