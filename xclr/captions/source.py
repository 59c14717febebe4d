"""What every source of captioned pictures gives."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

from xclr.datafiles import Picture
from xclr.recipe import DataConfig

Record = dict[str, Any]  # key, caption (normalised), label (name of the class or None), split; url; emoji annotations
Records = Generator[Record, None, dict[str, Any]]  # streamed; the return value joins the stage's stats


class Source(NamedTuple):
    """Where captioned pictures come from; captions and pictures use one order of rows."""

    captions: Callable[[DataConfig], Records]
    pictures: Callable[[DataConfig], Iterator[Picture]]
    size: Callable[[DataConfig], int]  # rows there can be at most, for the progress bar
