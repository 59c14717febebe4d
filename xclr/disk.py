"""What people are told where a disk takes nothing more: it is full, over quota or read-only."""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from xclr.errors import StoreError, XclrError

OWN = "choose a folder you own: --home DIR or XCLR_HOME"
PLACES = "--home DIR or XCLR_HOME, for the databases XCLR_STATE"
LESS = f"free some (xclr gc --dry-run shows what no run needs), or choose another disk: {PLACES}"
FAULTS = {
    errno.ENOSPC: ("no space left on {mount} ({free})", LESS),
    errno.EDQUOT: ("the quota on {mount} is used up ({free})", LESS),
    errno.EROFS: ("{mount} is mounted read-only", f"choose a folder that can be written: {PLACES}"),
}
PROBE = 1 << 20  # bytes; where a large file does not fit, a small one may
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class Room(NamedTuple):
    """A mounted file system, its bytes, and whether it takes more files."""

    mount: Path
    free: int
    total: int
    takes_files: bool

    def __str__(self) -> str:
        return f"{size(self.free)} free of {size(self.total)}" if self.takes_files else "no inode free"


def room_at(path: Path) -> Room:
    """The file system that holds a path, or will hold it."""
    there = existing(path)
    bound = _mounts()  # which is_mount does not know
    mount = next(each for each in (there, *there.parents) if each.is_mount() or str(each) in bound)
    seen = os.statvfs(there)
    takes_files = bool(seen.f_favail) or not seen.f_files  # some file systems count none
    return Room(mount, seen.f_bavail * seen.f_frsize, seen.f_blocks * seen.f_frsize, takes_files)


def _mounts() -> frozenset[str]:
    """Where Linux has something mounted."""
    with suppress(OSError):
        lines = Path("/proc/self/mounts").read_text().splitlines()
        return frozenset(line.split()[1].replace("\\040", " ") for line in lines)
    return frozenset()


def existing(path: Path) -> Path:
    """A path or the nearest of its parents that exists, without links."""
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    return there.resolve()


def size(number: float) -> str:
    """Bytes as people write them: 8.4 MB."""
    unit = 0
    while number >= 999.5 and unit < len(UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.1f} {UNITS[unit]}" if unit and number < 10 else f"{number:.0f} {UNITS[unit]}"


def check_room(path: Path, least: int) -> None:
    """Raise StoreError where fewer bytes than that are free at a path."""
    if room_at(path).free < least:
        fault = _fault(path, errno.ENOSPC)
        raise StoreError(f"{fault.message}: at least {size(least)} are needed", fault.remedy)


@contextmanager
def told(*places: Path) -> Iterator[None]:
    """Raise StoreError where the block ended because one of the disks of these places took nothing more."""
    try:
        yield
    except XclrError:
        raise
    except Exception as error:
        fault = fault_of(error, *places)
        if fault is None:
            raise
        raise fault from error


@contextmanager
def output_told() -> Iterator[None]:
    """Raise StoreError where what the block prints is not taken whole, be it on /dev/full or a full disk."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it has enough
        _drop_output()
        raise SystemExit(1) from None
    except OSError as error:
        fault = _of_output() if error.errno in FAULTS else None
        if fault is None:
            raise
        raise fault from error


def fault_of(error: BaseException, *places: Path) -> StoreError | None:
    """What a disk has to do with an error: as it says itself, or as a probe of the places shows; None for nothing.

    A full database, torch, and programs that were started do not say what they could not write.
    """
    causes = list(_causes(error))
    named = (said(each) for each in causes if isinstance(each, OSError))
    found = next(filter(None, named), None) or probed(*places, Path(tempfile.gettempdir()))
    if found is not None or not any(_number(each) in FAULTS for each in causes):
        return found
    return _of_output() or _fault(min(places, key=lambda each: room_at(each).free), errno.ENOSPC)


def said(error: OSError) -> StoreError | None:
    """What an error says itself, where it names a file; None for one that says nothing of its disk."""
    if error.errno not in FAULTS or not isinstance(error.filename, str):
        return None
    return _fault(Path(error.filename), error.errno)


def probed(*places: Path) -> StoreError | None:
    """What a file of PROBE bytes at each of the places runs into."""
    for place in places:
        try:
            with tempfile.TemporaryFile(dir=existing(place)) as probe:
                probe.write(bytes(PROBE))
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as error:
            if error.errno in FAULTS:
                return _fault(place, error.errno)
    return None


def _fault(path: Path, number: int) -> StoreError:
    message, remedy = FAULTS[number]
    room = room_at(path)
    return StoreError(message.format(mount=room.mount, free=room), remedy)


def _of_output() -> StoreError | None:
    """The error where it is standard output that cannot be written."""
    try:
        print(flush=True)  # what failed is no longer in its buffer
    except OSError as error:
        _drop_output()
        return StoreError(f"standard output cannot be written: {error.strerror}", "write it to another place")
    return None


def _drop_output() -> None:
    """Let what is printed from now on, and what Python flushes at its end, go nowhere."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it came of, and what that came of."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _number(error: BaseException) -> int | None:
    if isinstance(error, sqlite3.Error):
        return errno.ENOSPC if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL else None
    return error.errno if isinstance(error, OSError) else None
