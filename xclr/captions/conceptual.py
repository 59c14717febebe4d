"""Conceptual Captions: tab-separated captions and addresses without a header, in the two orders of CC3M and CC12M."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from xclr.captions.source import Records
from xclr.captions.text import key, normalise
from xclr.datafiles import GET, Picture, columns_of, located
from xclr.errors import DataError
from xclr.recipe import DataConfig
from xclr.tablefile import count_lines, raw_lines

SHOWN = 5  # malformed lines named in the stats


def captions(data: DataConfig) -> Records:
    """One record a line, all of split "train"; lines that hold no caption and address are counted as malformed."""
    malformed: list[int] = []
    kept = 0
    for line, caption, url in _pairs(data, malformed):
        kept += 1
        # the line is in the key because some pairs stand twice
        yield {
            "key": key(data.source, str(line), url),
            "caption": normalise(caption),
            "label": None,
            "split": "train",
            "url": url,
        }
    if not kept:
        raise DataError(f"{located(data)} has no line of {data.source}", GET[data.source])
    lines = ", ".join(map(str, malformed[:SHOWN])) + (", ..." if len(malformed) > SHOWN else "")
    return {"malformed": len(malformed)} | ({"malformed_lines": lines} if malformed else {})


def pictures(data: DataConfig) -> Iterator[Picture]:
    """The addresses in the order of `captions`."""
    return (url for _, _, url in _pairs(data, []))


def size(data: DataConfig) -> int:
    """How many rows there can be."""
    return count_lines(located(data))


def _pairs(data: DataConfig, malformed: list[int]) -> Iterator[tuple[int, str, str]]:
    """Line, caption and address of the first `limit` lines that hold both; the numbers of the others before."""

    def found() -> Iterator[tuple[int, str, str]]:
        for line, raw in enumerate(raw_lines(located(data)), start=1):
            pair = columns_of(raw, data.source)
            if pair is None:
                malformed.append(line)
            else:
                yield line, *pair

    return islice(found(), data.limit)
