"""Files of any kind: what a picture may be, and hashes of lists of them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from xclr.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
TRAIN, HELD_OUT = "train", ("val", "valid", "validation", "test", "dev", "eval")  # folders that are splits when they
# are all there is, in any case
NOT_TRAINED = ("pictures", "val", "validation", "test")  # splits of own pictures to judge by, the first that there is


class Inside(NamedTuple):
    """A picture that lies in a file, uncompressed."""

    path: Path
    offset: int
    size: int


Picture = bytes | Path | str | Inside | None  # encoded, an absolute file, an http(s) address, part of a file, or none


def is_picture(name: str) -> bool:
    """True for the name of a picture's file; hidden ones are none."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def is_url(text: str) -> bool:
    """True for an http(s) address."""
    return text[:8].lower().startswith(("http://", "https://"))


def hash_listing(files: Iterable[tuple[str, Path]]) -> str:
    """SHA-256 of (name, size, mtime_ns) of files, in their order."""
    found = hashlib.sha256()
    for name, path in files:
        found.update(stamp_of(name, path) or b"")
    return found.hexdigest()


def stamp_of(name: str, path: Path) -> bytes | None:
    """Name, size and time of change of a file; None when there is none."""
    try:
        seen = path.stat()
    except (OSError, ValueError):  # a ValueError is a name with a zero byte
        return None
    if not stat.S_ISREG(seen.st_mode):
        return None
    return os.fsencode(name) + f"\0{seen.st_size}\0{seen.st_mtime_ns}\n".encode()


def read_list(path: Path) -> str:
    """The content of a list of names; raises DataError for one that is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8, at byte {error.start:,}", "fetch it again, or save it as UTF-8"
        ) from error


def is_text(name: str) -> bool:
    """False for a string with halves of characters, as file names and JSON may hold."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
