"""Pictures out of shards, as tensors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageOps
from torch import Tensor

from xclr.errors import DataError

DIRECT = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"})


def usable_rows(images: Path) -> npt.NDArray[np.int64]:
    """Sorted row ids of the pictures that can be decoded."""
    table = pq.read_table(images / "images.parquet", columns=["row_id", "status"])
    return np.asarray(table.filter(pc.field("status") == "ok").column("row_id"), dtype=np.int64)


def read_pictures(images: Path, rows: Sequence[int] | npt.NDArray[np.int64], side: int) -> Tensor:
    """Decode rows of an images artifact: uint8 [n, 4, side, side], red, green, blue, alpha.

    The shortest edge is resized to `side`, the centre is cropped. Raises DataError for a row without a picture.
    """
    table = pq.read_table(images / "images.parquet", columns=["row_id", "shard", "offset", "size"])
    shards, offsets, sizes = (table.column(name).to_pylist() for name in ("shard", "offset", "size"))
    pixels = torch.empty(len(rows), 4, side, side, dtype=torch.uint8)
    files = [path.open("rb") for path in sorted(images.glob("shard-*.tar"))]
    try:
        for index, row in enumerate(rows):
            if shards[row] is None:
                raise DataError(f"row {row} has no picture", "train on the rows whose status is ok")
            files[shards[row]].seek(offsets[row])
            pixels[index] = decode(files[shards[row]].read(sizes[row]), side)
    finally:
        for file in files:
            file.close()
    return pixels


def decode(data: bytes, side: int) -> Tensor:
    """One encoded picture as uint8 [4, side, side]."""
    with Image.open(io.BytesIO(data)) as picture:
        square = _square(_rgba(picture), side)
    return torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)


def _rgba(picture: Image.Image) -> Image.Image:
    """Red, green, blue, alpha, the right way up; 16-bit grey is scaled, which Pillow's convert would cut off at 255."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture, dtype=np.float32) / 257).clip(0, 255).astype(np.uint8))
    picture = ImageOps.exif_transpose(picture)
    if picture.mode not in DIRECT:  # CMYK, YCbCr, LAB, HSV, F: Pillow knows no way from them to RGBA
        picture = picture.convert("L" if picture.mode == "F" else "RGB")
    return picture.convert("RGBA")


def _square(picture: Image.Image, side: int) -> Image.Image:
    width, height = picture.size
    if (width, height) == (side, side):
        return picture
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    box = (left, top, left + short, top + short)
    return picture.resize((side, side), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
