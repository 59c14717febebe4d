"""The images stage: every picture checked, accounted for and packed into tars that other tools read."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from xclr import schema
from xclr.captions import SOURCES
from xclr.stages import ImagesConfig, Produced, Progress, Stage

SHARD_ROWS = 10_000
MIN_SIDE = 8  # pixels
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    Image.DecompressionBombError,
)  # what Pillow raises on broken bytes
SUFFIX = {"WEBP": "webp", "PNG": "png", "JPEG": "jpg", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}


def run(stage: Stage, out: Path, progress: Progress) -> Produced:
    """Write shard-00000.tar ... (<row_id>.<suffix> and .txt, the WebDataset layout) and images.parquet.

    images.parquet has one row for every captions row, whatever the picture is like; `offset` and `size` locate the
    encoded picture inside the shard.
    """
    assert isinstance(stage.config, ImagesConfig)
    captions = pq.read_table(stage.inputs["captions"].path / "captions.parquet", columns=["caption"])
    texts = captions.column("caption").to_pylist()
    pictures = SOURCES[stage.config.data.source].pictures(stage.config.data)
    rows: list[dict[str, Any]] = []
    names = []
    for shard, begin in enumerate(range(0, len(texts), SHARD_ROWS)):
        names.append(f"shard-{shard:05d}.tar")
        here = texts[begin : begin + SHARD_ROWS]
        rows += _pack(out / names[-1], shard, begin, here, pictures)
        progress(len(rows), len(texts))
    table = pa.Table.from_pylist(rows, schema.IMAGES)
    schema.write(table, out / "images.parquet", schema.IMAGES, {"digest": stage.digest, "config": stage.identity})
    statuses = [row["status"] for row in rows]
    stats = {"rows": len(rows)} | {status: statuses.count(status) for status in sorted(set(statuses))}
    return Produced(("images.parquet", *names), stats)


def inspect(data: bytes | None) -> dict[str, Any]:
    """Status, size and format of an encoded picture: the columns of an images row; never raises on bad bytes."""
    found: dict[str, Any] = {"bytes": len(data or b""), "sha256": hashlib.sha256(data or b"").hexdigest()}
    if not data:
        return found | {"status": "decode", "error": "no bytes"}
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            found |= {"width": picture.width, "height": picture.height, "format": picture.format}
    except UNREADABLE as error:
        return found | {"status": "decode", "error": f"{type(error).__name__}: {error}"[:200]}
    if min(found["width"], found["height"]) < MIN_SIDE:
        return found | {"status": "too_small", "error": f"{found['width']} x {found['height']}"}
    return found | {"status": "ok"}


def _pack(
    path: Path, shard: int, begin: int, texts: list[str], pictures: Iterator[bytes | None]
) -> list[dict[str, Any]]:
    rows = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row_id, (text, data) in enumerate(zip(texts, islice(pictures, len(texts)), strict=True), start=begin):
            found = inspect(data)
            suffix = SUFFIX.get(found.pop("format", "") or "", "img")
            rows.append({"row_id": row_id, "attempt": 1, "shard": shard, **found})
            if found["status"] == "ok":
                _add(tar, f"{row_id:09d}.{suffix}", data or b"")
                _add(tar, f"{row_id:09d}.txt", text.encode())
    places = _places(path)
    for row in rows:
        row["offset"], row["size"] = places.get(row["row_id"], (None, None))
        row["shard"] = shard if row["status"] == "ok" else None
    return rows


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _places(path: Path) -> dict[int, tuple[int, int]]:
    with tarfile.open(path) as tar:
        return {
            int(entry.name.partition(".")[0]): (entry.offset_data, entry.size)
            for entry in tar
            if not entry.name.endswith(".txt")
        }
