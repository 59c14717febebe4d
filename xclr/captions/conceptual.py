"""Conceptual Captions: tab-separated captions and addresses without a header, in the two orders of CC3M and CC12M."""

from __future__ import annotations

from collections.abc import Mapping

from xclr.captions import tablefile
from xclr.captions.source import Records, SourceReader, located
from xclr.captions.tablefile import count_lines, raw_lines
from xclr.captions.text import key, normalise
from xclr.errors import DataError
from xclr.files import is_url
from xclr.recipe import SOURCES, DataConfig

PROBE_LINES = 100  # of a TSV, looked at before any work
ORDER: Mapping[str, tuple[int, int]] = {"cc3m": (0, 1), "cc12m": (1, 0)}  # columns of caption and address

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
        raise DataError(f"{located(data)} has no line of {data.source}", str(SOURCES[data.source].get))
    lines = ", ".join(shown) + (", ..." if malformed > SHOWN else "")
    return {"malformed": malformed} | ({"malformed_lines": lines} if malformed else {})


def size(data: DataConfig) -> int:
    """How many rows there can be."""
    return count_lines(located(data))


def columns_of(line: bytes, source: str) -> tuple[str, str] | None:
    """Caption and address of a line of Conceptual Captions; None for a line that does not hold just these."""
    try:
        parts = line.decode("utf-8-sig").rstrip("\r\n").split("\t")
    except UnicodeDecodeError:
        return None
    if len(parts) != 2:
        return None
    caption, url = (parts[index] for index in ORDER[source])
    return (caption, url.strip()) if caption.strip() and is_url(url.strip()) else None


def check_order(data: DataConfig) -> None:
    """Raise DataError when the first lines are none of the source's."""
    path = located(data)
    lines = [line for line, _ in zip(tablefile.raw_lines(path), range(PROBE_LINES), strict=False)]
    if not any(columns_of(line, data.source) for line in lines):
        other = next(name for name in ORDER if name != data.source)
        turned = any(columns_of(line, other) for line in lines)
        raise DataError(
            f"{path}: none of the first {len(lines)} lines is one of {data.source}"
            + (f"; they are in the order of {other}" if turned else ""),
            f"set data.source to {other}" if turned else str(SOURCES[data.source].get),
        )


READER = SourceReader(captions, size, unique_urls=True, check=check_order)
