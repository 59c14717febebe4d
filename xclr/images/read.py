"""Pictures out of shards, as tensors."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from xclr.errors import DataError
from xclr.images.picture import opened, orientation, rgb, rgba, size_of, upright


class UnreadableError(DataError):
    """Bytes that are there and are no picture, though they were judged to be one."""


def usable_rows(images: Path) -> npt.NDArray[np.int64]:
    """Sorted row ids of the pictures that can be decoded."""
    table = pq.read_table(images / "images.parquet", columns=["row_id", "status"])
    return np.asarray(table.filter(pc.field("status") == "ok").column("row_id"), dtype=np.int64)


def read_pictures(
    images: Path, rows: Sequence[int] | npt.NDArray[np.int64], side: int, lost: set[int] | None = None
) -> Tensor:
    """Decode rows of an images artifact: uint8 [n, 4, side, side], red, green, blue, alpha.

    The shortest edge is resized to `side`, the centre is cropped. A picture that cannot be read after all is
    transparent, and its row is added to `lost`. Raises DataError for a row without a picture and a damaged shard.
    """
    files = PictureFiles.open(images, np.asarray(rows, dtype=np.int64))
    pixels = torch.zeros(len(files.rows), 4, side, side, dtype=torch.uint8)
    for shard in np.unique(files.shards):
        with (images / f"shard-{shard:05d}.tar").open("rb") as tar:
            for index in np.flatnonzero(files.shards == shard).tolist():
                try:
                    pixels[index] = files.square(index, side, tar)
                except UnreadableError:
                    if lost is not None:
                        lost.add(int(files.rows[index]))
    return pixels


class Encoded(NamedTuple):
    """A picture that is not decoded yet.

    `decode` takes how many times larger than needed the picture is, and may return it smaller by a power of two (JPEG);
    what it returns is upright RGB, uint8 [h, w, 3].
    """

    size: tuple[int, int]  # width, height, upright
    decode: Callable[[float], Tensor]
    jpeg: bytes | None  # where any decoder of JPEGs gives what `decode` returns


class EncodedPictures(ABC):
    """Encoded pictures by position: their row ids, and which of several files each is in, int64 [n] each."""

    rows: npt.NDArray[np.int64]
    shards: npt.NDArray[np.int64]

    @abstractmethod
    def encoded(self, position: int) -> bytes:
        """The bytes of a picture; workers may read at once, and after a fork."""

    def name(self, position: int) -> str:
        """What people call a picture."""
        return f"row {self.rows[position]}"

    @abstractmethod
    def unreadable(self, position: int, error: Exception, *, there: bool) -> DataError:
        """What to say of a picture whose bytes cannot be had, or are there and no picture.

        An UnreadableError lets another picture stand in its place.
        """

    def picture(self, position: int, behind: float) -> Encoded:
        """The picture at a position, transparent parts on grey `behind`.

        This and its `decode` raise what `unreadable` gives.
        """
        data = self._bytes(position)
        with self._reading(position):
            picture = opened(data)
            plain = _is_plain(picture) and picture.info.get("adobe_transform") != 0  # which is RGB as it is
            decode = partial(self._decoded, position, data, picture, behind)
            return Encoded(size_of(picture), decode, data if plain else None)

    def _bytes(self, position: int) -> bytes:
        try:
            return self.encoded(position)
        except Exception as error:
            raise self.unreadable(position, error, there=False) from error

    def _decoded(self, position: int, data: bytes, picture: Image.Image, behind: float, times: float) -> Tensor:
        with self._reading(position):
            if times >= 2:
                picture.draft("RGB", (math.ceil(picture.width / times), math.ceil(picture.height / times)))
            elif (pixels := _plain_jpeg(data, picture)) is not None:
                return pixels
            return torch.from_numpy(np.array(rgb(upright(picture), behind)))

    @contextmanager
    def _reading(self, position: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise self.unreadable(position, error, there=True) from error


@dataclass(frozen=True)
class PictureFiles(EncodedPictures):
    """Where pictures lie in the shards of an images artifact: row ids, shards, offsets and sizes, int64 [n] each."""

    folder: Path
    rows: npt.NDArray[np.int64]
    shards: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    @classmethod
    def open(cls, images: Path, rows: npt.NDArray[np.int64]) -> PictureFiles:
        """Look up some rows; raises DataError for a row without a picture."""
        return cls(images, rows, *_places(images, rows))

    def encoded(self, position: int) -> bytes:
        offset, size = int(self.offsets[position]), int(self.sizes[position])
        data = os.pread(_descriptor(self.folder / f"shard-{self.shards[position]:05d}.tar"), size, offset)
        if len(data) < size:
            raise OSError(f"the shard ends after {len(data)} of {size} bytes")
        return data

    def unreadable(self, position: int, error: Exception, *, there: bool) -> DataError:
        if there:
            return UnreadableError(
                f"the picture of row {self.rows[position]} in {self.folder} cannot be read: {error}",
                "if there are many, remove this folder and run the recipe again, which judges each picture anew",
            )
        place = f"shard {self.shards[position]}, offset {self.offsets[position]}"
        return DataError(
            f"row {self.rows[position]} cannot be read from {self.folder} ({place}): {error}",
            "the shard is damaged: remove this folder and run the recipe again, which makes it anew",
        )

    def square(self, position: int, side: int, tar: BinaryIO) -> Tensor:
        """What `decode` makes of the picture at a position of an open shard; raises as `picture` does."""
        tar.seek(self.offsets[position])
        data = tar.read(self.sizes[position])
        with self._reading(position):
            return decode(data, side)


def _is_plain(picture: Image.Image) -> bool:
    """Whether it is an upright colour JPEG."""
    return (picture.format, picture.mode, orientation(picture)) == ("JPEG", "RGB", 1)


def _plain_jpeg(data: bytes, picture: Image.Image) -> Tensor | None:
    """The pixels of an upright colour JPEG, the same as Pillow's in two thirds of the time; None for another."""
    from torchvision.io import ImageReadMode, decode_jpeg

    if not _is_plain(picture):
        return None
    with suppress(RuntimeError):  # Pillow reads more that is damaged
        pixels: Tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
        return pixels.permute(1, 2, 0)
    return None


@cache
def _descriptor(path: Path) -> int:
    """An open file of this process; reads by offset need no position, so that it can be shared by forks."""
    return os.open(path, os.O_RDONLY)


def decode(data: bytes, side: int) -> Tensor:
    """One encoded picture as uint8 [4, side, side], upright; of an animation the first frame."""
    with opened(data) as picture:
        square = _square(rgba(upright(picture)), side)
    return torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)


Places = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def _places(images: Path, rows: npt.NDArray[np.int64]) -> Places:
    """Shard, offset and size of each row's picture."""
    table = pq.read_table(images / "images.parquet", columns=["shard", "offset", "size"]).take(rows)
    lost = rows[np.asarray(table.column("shard").is_null())]
    if len(lost):
        raise DataError(f"row {lost[0]} has no picture", "train on the rows whose status is ok")
    shards, offsets, sizes = (np.asarray(column, dtype=np.int64) for column in table.columns)
    return shards, offsets, sizes


def _square(picture: Image.Image, side: int) -> Image.Image:
    width, height = picture.size
    if (width, height) == (side, side):
        return picture
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    box = (left, top, left + short, top + short)
    return picture.resize((side, side), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
