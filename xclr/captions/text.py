"""One spelling per caption, and the keys that follow from it."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Sequence

from xclr.errors import DataError
from xclr.files import is_text


def normalise(caption: str) -> str:
    """NFC, with every run of white space as one space and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", caption).split())


def key(*parts: str) -> bytes:
    """blake2b-128 of the parts, each told from the next."""
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).digest()


def share(*parts: str) -> float:
    """A number in [0, 1) fixed by the parts: splits by it never depend on the order or number of rows."""
    return int.from_bytes(key(*parts)[:8], "big") / 2**64


class CaptionCheck:
    """Normalises captions one by one and remembers those that are of no use."""

    def __init__(self, where: str, places: Callable[[Sequence[int]], str]) -> None:
        self.where, self.places = where, places
        self.faults: dict[str, list[int]] = {"not UTF-8": [], "empty": []}

    def caption(self, place: int, value: object) -> str:
        """The normalised caption, "" when it is of no use; raises DataError for a value that is not text."""
        if value is not None and not isinstance(value, bytes | str):
            raise DataError(
                f"{self.where}: the caption is {described(value)} ({value!r}), not text ({self.places([place])})",
                "put it in quotes",
            )
        try:
            text = normalise(value.decode() if isinstance(value, bytes) else value or "")
        except UnicodeDecodeError:
            self.faults["not UTF-8"].append(place)
            return ""
        if not text or not is_text(text):
            self.faults["not UTF-8" if text else "empty"].append(place)
        return text

    def finish(self) -> None:
        """Raise DataError with the first places whose captions are empty or not UTF-8."""
        for fault, places in self.faults.items():
            if places:
                raise DataError(
                    f"{self.where}: {len(places)} captions are {fault} ({self.places(places)})",
                    "mend or remove these rows",
                )


def described(value: object) -> str:
    """The kind of a value, for messages."""
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), "text")
