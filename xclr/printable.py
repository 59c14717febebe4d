"""Text from outside as it may stand on a terminal, in a log or in a script: nothing in it acts."""

from __future__ import annotations

import re

ACTING = re.compile(  # controls but tabs and line feeds, marks that turn the order of letters, halves of characters
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with what acts on a terminal, or cannot be written as UTF-8, spelled out as Python does."""
    return ACTING.sub(lambda found: repr(found[0])[1:-1], text)


def in_one_line(text: str) -> str:
    """What is printable of a text, with single spaces for line ends and other white space."""
    return " ".join(printable(text).split())


def acts(text: str) -> bool:
    """Whether a text holds a line end, or what `printable` spells out."""
    return "\n" in text or ACTING.search(text) is not None
