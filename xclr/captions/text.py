"""One spelling per caption, and the keys that follow from it."""

from __future__ import annotations

import codecs
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from math import isnan
from typing import Any

from xclr.errors import DataError
from xclr.files import is_text

BOMS = (  # the longer first
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
INVISIBLE = re.compile(  # controls that are no white space, soft hyphens, blanks of no width, marks of direction
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
WHOLE = re.compile(r"(-?[0-9]+)\.0+")  # a number that pandas wrote beside missing ones
MISSING = frozenset({"", "NaN", "nan"})
MOST_SHOWN = 300  # characters of a caption in pages and on terminals
SHOWN = 6  # places of a fault that are kept: one more than are named


def normalise(caption: str) -> str:
    """NFC, with every run of white space as one space and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", caption).split())


def visible(text: str) -> str:
    """The text without what nobody sees: controls, blanks of no width, marks of order and direction."""
    return INVISIBLE.sub("", text)


def readable(text: str) -> str:
    """What is visible, normalised: one spelling for what looks the same."""
    return normalise(visible(text))


def shortened(caption: str) -> str:
    """The beginning of a caption that nobody reads to its end."""
    return caption if len(caption) <= MOST_SHOWN else caption[:MOST_SHOWN] + "…"


def encoding_of(start: bytes) -> str | None:
    """The encoding that a text's byte order mark tells; None without one."""
    return next((name for mark, name in BOMS if start.startswith(mark)), None)


def is_missing(value: object) -> bool:
    """Whether a table holds nothing there: None, or the NaN that stands for it."""
    return value is None or (isinstance(value, float) and isnan(value))


def label_of(value: object) -> str | None:
    """The name of a class, readable; whole numbers have no .0; None where there is none."""
    if is_missing(value):
        return None
    text = readable(str(value))
    whole = WHOLE.fullmatch(text)
    return whole[1] if whole else None if text in MISSING else text


def key(*parts: str) -> bytes:
    """blake2b-128 of the parts, each told from the next."""
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).digest()


def share(*parts: str) -> float:
    """A number in [0, 1) fixed by the parts: splits by it never depend on the order or number of rows."""
    return int.from_bytes(key(*parts)[:8], "big") / 2**64


class CaptionCheck:
    """Makes captions readable one by one, and remembers how many are of no use and where the first of these stand."""

    def __init__(self, where: str, places: Callable[[Sequence[int]], str]) -> None:
        self.where, self.places = where, places
        self.faults, self.first, self.kept = Counter[str](), dict[str, list[int]](), 0

    def caption(self, place: int, value: object) -> str:
        """The readable caption, "" when it is of no use; raises DataError for a value that is not text."""
        if not is_missing(value) and not isinstance(value, bytes | str):
            raise DataError(
                f"{self.where}: the caption is {described(value)} ({value!r}), not text ({self.places([place])})",
                "put it in quotes",
            )
        try:
            text = readable(value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else "")
        except UnicodeDecodeError:
            return self._leave_out("not UTF-8", place)
        if not text or not is_text(text):
            return self._leave_out("not UTF-8" if text else "empty", place)
        self.kept += 1
        return text

    def _leave_out(self, fault: str, place: int) -> str:
        self.faults[fault] += 1
        if len(places := self.first.setdefault(fault, [])) < SHOWN:
            places.append(place)
        return ""

    def finish(self) -> dict[str, Any]:
        """Stats of what was left out; raises DataError where that is more than was kept."""
        number = self.faults.total()
        named = "; ".join(f"{fault}: {self.places(self.first[fault])}" for fault in self.faults)
        if number > self.kept:
            raise DataError(
                f"{self.where}: {number} of {number + self.kept} captions are of no use ({named})",
                "mend these rows, or see whether data.caption_column names the right column",
            )
        return {"malformed": number, "malformed_samples": named} if number else {}


def described(value: object) -> str:
    """The kind of a value, for messages."""
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), "text")
