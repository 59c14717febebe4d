"""What every source of captioned pictures gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

from xclr.datafiles import Picture
from xclr.recipe import DataConfig

SYNSET = re.compile(r"n\d{8}")
Record = dict[str, Any]  # key, caption (normalised), label (name of the class or None), split; url; place: file below
# data.path, offset and size of the picture; emoji annotations
Records = Generator[Record, None, dict[str, Any]]  # streamed; the return value joins the stage's stats


class Class(NamedTuple):
    """What a label stands for."""

    name: str
    synset: str | None


def plain_classes(data: DataConfig, labels: Sequence[str]) -> list[Class]:
    """Labels whose words are joined by underscores; one that is a synset is one."""
    return [Class(label.replace("_", " ").strip(), label if SYNSET.fullmatch(label) else None) for label in labels]


class Source(NamedTuple):
    """Where captioned pictures come from; captions and pictures use one order of rows."""

    captions: Callable[[DataConfig], Records]
    size: Callable[[DataConfig], int]  # rows there can be at most, for the progress bar
    pictures: Callable[[DataConfig], Iterator[Picture]] | None = None  # where records have neither url nor place
    classes: Callable[[DataConfig, Sequence[str]], list[Class]] = plain_classes  # of labels, in their order
    unique_urls: bool = False  # a row whose address stood before is left out: its picture would be its own negative
