"""One spelling per caption, and the keys that follow from it."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

from xclr.errors import DataError


def normalise(caption: str) -> str:
    """NFC, with every run of white space as one space and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", caption).split())


def key(*parts: str) -> bytes:
    """blake2b-128 of the parts, each told from the next."""
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).digest()


def share(*parts: str) -> float:
    """A number in [0, 1) fixed by the parts: splits by it never depend on the order or number of rows."""
    return int.from_bytes(key(*parts)[:8], "big") / 2**64


def decode_captions(values: Iterable[object], where: str) -> list[str]:
    """Normalised captions of a column; raises DataError with the first row numbers that are empty or not UTF-8."""
    captions, empty, broken = [], [], []
    for row, value in enumerate(values):
        try:
            text = value.decode() if isinstance(value, bytes) else "" if value is None else str(value)
        except UnicodeDecodeError:
            broken.append(row)
            text = "?"
        captions.append(normalise(text))
        if not captions[-1]:
            empty.append(row)
    for rows, fault in ((broken, "not UTF-8"), (empty, "empty")):
        if rows:
            first = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
            raise DataError(
                f"{where}: {len(rows)} captions are {fault} (rows {first}, counted from 0)", "mend or remove these rows"
            )
    return captions
