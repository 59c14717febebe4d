"""Conceptual Captions: tab-separated captions and addresses without a header, in the two orders of CC3M and CC12M."""

from __future__ import annotations

from xclr.captions.source import Records
from xclr.captions.text import key, normalise
from xclr.datafiles import GET, columns_of, located
from xclr.errors import DataError
from xclr.recipe import DataConfig
from xclr.tablefile import count_lines, raw_lines

SHOWN = 5  # malformed lines named in the stats


def captions(data: DataConfig) -> Records:
    """One record a line, all of split "train"; lines that hold no caption and address are counted as malformed."""
    malformed, kept = 0, 0
    shown: list[str] = []
    for line, raw in enumerate(raw_lines(located(data)), start=1):
        pair = columns_of(raw, data.source)
        if pair is None:
            malformed += 1
            shown += [str(line)] if len(shown) < SHOWN else []
            continue
        caption, url = pair
        kept += 1
        # the line is in the key because some pairs stand twice
        yield {
            "key": key(data.source, str(line), url),
            "caption": normalise(caption),
            "label": None,
            "split": "train",
            "url": url,
        }
        if kept == data.limit:
            break
    if not kept:
        raise DataError(f"{located(data)} has no line of {data.source}", GET[data.source])
    lines = ", ".join(shown) + (", ..." if malformed > SHOWN else "")
    return {"malformed": malformed} | ({"malformed_lines": lines} if malformed else {})


def size(data: DataConfig) -> int:
    """How many rows there can be."""
    return count_lines(located(data))
