"""Stages that are made in pieces: which pieces there are, and which of them are done.

A shard is a folder OUT/shards/00003 that is renamed into place when it is whole, so that an attempt that was killed
repeats at most the shard it was at. The stage's runner makes what is missing and puts all together; `run_shard` of its
module makes a single one, as an element of a job array does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

SHARDS = "shards"


class Shard(NamedTuple):
    """Where a shard goes."""

    out: Path
    shard: int
    size: int  # items of a shard; the last one may have fewer


def parts(rows: int, most: int) -> list[slice]:
    """Rows in parts of about equal size, none larger than `most`."""
    number = -(-rows // most)
    ends = [rows * part // number for part in range(number + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def pairs(number: int) -> list[tuple[int, int]]:
    """Every unordered pair of parts once, a part with itself among them: what each shard of a graph compares."""
    return [(own, other) for own in range(number) for other in range(own, number)]


def folder(out: Path, shard: int) -> Path:
    """Where a finished shard is."""
    return out / SHARDS / f"{shard:05d}"


def missing(out: Path, number: int) -> tuple[int, ...]:
    """The shards of `number` that are not done, in order."""
    return tuple(shard for shard in range(number) if not folder(out, shard).is_dir())


@contextmanager
def writing(place: Shard) -> Iterator[Path]:
    """A folder to fill; it becomes the shard when the block ends well. A shard that is there already stays."""
    final = folder(place.out, place.shard)
    draft = final.with_name(f".{final.name}.{os.uname().nodename}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        for path in draft.iterdir():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        if not final.is_dir():
            draft.rename(final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
