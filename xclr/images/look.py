"""A look at own pictures before they are obtained: the headers of a few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median_low
from typing import TYPE_CHECKING, NamedTuple

from xclr.captions import wds
from xclr.captions.source import located, reader_of
from xclr.files import Inside, Picture
from xclr.images.picture import opened, rgba, size_of
from xclr.recipe import DataConfig, Seen

if TYPE_CHECKING:
    from PIL import Image

LOOKED = 64  # pictures: the first of a table or of tars, those of a folder drawn by name
DECODED = 8  # of them, to see whether they are cut out
DECODED_PIXELS = 4_000_000  # of each at most
Here = bytes | Path | Inside  # a picture that need not be fetched


class Header(NamedTuple):
    """Sides of a picture that is upright, in pixels, and whether it may have transparent parts."""

    width: int
    height: int
    alpha: bool


def look(data: DataConfig) -> Seen | None:
    """What a few of the pictures tell of all; None where none can be seen, and none is at an address.

    Raises DataError as the source does for data that cannot be what the recipe says.
    """
    reader_of(data.source).check(data)
    limit = min(LOOKED, data.limit or LOOKED)
    given = list(_pictures(data.model_copy(update={"limit": limit})))
    here = (each for each in given if isinstance(each, bytes | Path | Inside))
    headers = [(each, header) for each in here if (header := _header(each)) is not None]
    about = _number(data, given)
    number = len(given) if len(given) < limit and about <= 2 * LOOKED else about
    if not headers:
        return Seen(number) if any(isinstance(each, str) for each in given) else None
    sides = [(header.width, header.height) for _, header in headers]
    width, height = (median_low(side) for side in zip(*sides, strict=True))
    return Seen(number, width, height, median_low(map(min, sides)), _are_cut_out(headers))


def _pictures(data: DataConfig) -> Iterator[Picture]:
    reader = reader_of(data.source)
    if reader.pictures is not None:
        yield from reader.pictures(data)
        return
    root = located(data) if located(data).is_dir() else located(data).parent
    for record in reader.captions(data):
        if "place" in record:
            file, offset, size = record["place"]
            yield Inside(root / file, offset, size)
        else:
            yield record["url"]


def _number(data: DataConfig, given: Sequence[Picture]) -> int:
    """How many pictures there are, about; in tars by their size."""
    if not given:
        return 0
    inside = [each for each in given if isinstance(each, Inside)]
    if inside:
        apart = [after.offset - each.offset for each, after in pairwise(inside) if after.path == each.path]
        bytes_each = fmean(apart) if apart else inside[0].size + wds.MEMBER_BYTES
        number = max(len(given), round(sum(path.stat().st_size for path in wds.tars(data)) / bytes_each))
    else:
        number = reader_of(data.source).size(data)
    return min(number, data.limit or number)


def _header(picture: Here) -> Header | None:
    """None for what is no picture, of which its own stage tells."""
    try:
        with _opened(picture) as found:
            width, height = size_of(found)
            return Header(width, height, "A" in found.getbands() or "transparency" in found.info)
    except Exception:  # noqa: BLE001 - Pillow raises whatever broken bytes make its plugins do
        return None


def _is_cut_out(picture: Here) -> bool:
    """Whether a picture can be decoded and has transparent parts."""
    try:
        with _opened(picture) as found:
            return rgba(found).getchannel("A").getextrema()[0] == 0
    except Exception:  # noqa: BLE001 - as above
        return False


@contextmanager
def _opened(picture: Here) -> Iterator[Image.Image]:
    """A picture of which the header was read; of a file no more than that."""
    if isinstance(picture, Path):
        with picture.open("rb") as file, opened(file) as found:
            yield found
        return
    with opened(picture if isinstance(picture, bytes) else _read(picture)) as found:
        yield found


def _read(place: Inside) -> bytes:
    with place.path.open("rb") as file:
        file.seek(place.offset)
        return file.read(place.size)


def _are_cut_out(seen: Sequence[tuple[Here, Header]]) -> bool:
    """Whether most have transparent parts; many a photograph has the channel, and nothing in it."""
    may = [each for each, header in seen if header.alpha and header.width * header.height <= DECODED_PIXELS]
    if 2 * len(may) <= len(seen):
        return False
    decoded = may[:DECODED]
    return 2 * sum(map(_is_cut_out, decoded)) > len(decoded)
