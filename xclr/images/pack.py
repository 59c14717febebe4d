"""The images stage: every picture checked, accounted for and packed into tars that other tools read."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from xclr import schema
from xclr.captions import SOURCES
from xclr.images.fetch import Fetched
from xclr.images.source import Reader
from xclr.stages import ImagesConfig, Produced, Progress, Stage
from xclr.store import flush

Sample = tuple[int, str, Fetched]  # row id, caption, picture

SHARD_ROWS = 10_000
PARTS = "parts"  # folder of the rows of finished shards, until all are
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
    encoded picture inside the shard. Finished shards survive a kill: the next attempt goes on with the one after.
    Raises DataError when the network is down.
    """
    assert isinstance(stage.config, ImagesConfig)
    data = stage.config.data
    captions = pq.ParquetFile(stage.inputs["captions"].path / "captions.parquet")
    total, texts = captions.metadata.num_rows, _texts(captions)
    pictures = SOURCES[data.source].pictures(data)
    (out / PARTS).mkdir(exist_ok=True)
    names = [f"shard-{shard:05d}.tar" for shard in range(-(-total // SHARD_ROWS))]
    with Reader(data.allow_hosts) as reader:
        for shard, name in enumerate(names):
            begin = shard * SHARD_ROWS
            size = min(SHARD_ROWS, total - begin)
            here, own = islice(texts, size), islice(pictures, size)
            if _part(out, name).exists():
                deque(zip(here, own, strict=True), maxlen=0)  # made before a kill: passed over, not read
            else:
                samples = zip(count(begin), here, reader.read(own), strict=False)
                _pack(out, name, shard, _counted(samples, begin, total, progress))
    return Produced(("images.parquet", *names), _assemble(stage, out, names), (PARTS,))


def _texts(captions: pq.ParquetFile) -> Iterator[str]:
    for batch in captions.iter_batches(SHARD_ROWS, columns=["caption"]):
        yield from batch.column(0).to_pylist()


def _counted(samples: Iterable[Sample], begin: int, total: int, progress: Progress) -> Iterator[Sample]:
    for done, sample in enumerate(samples, start=begin + 1):
        yield sample
        progress(done, total)


def _part(out: Path, name: str) -> Path:
    """The rows of a finished shard: renamed into place when its tar is on disk."""
    return out / PARTS / f"{name}.parquet"


def _assemble(stage: Stage, out: Path, names: list[str]) -> dict[str, int]:
    """Write images.parquet from the shards' rows; returns the number of rows, and of each status."""
    statuses: Counter[str] = Counter()
    about = {"digest": stage.digest, "config": stage.identity}
    with schema.writing(out / "images.parquet", schema.IMAGES, about) as write:
        for name in names:
            rows = schema.read(_part(out, name), schema.IMAGES)
            statuses.update(rows.column("status").to_pylist())
            write(rows)
    return {"rows": statuses.total()} | dict(sorted(statuses.items()))


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


def _pack(out: Path, name: str, shard: int, samples: Iterable[Sample]) -> None:
    """Write one shard and then, when it is safely on disk, its rows."""
    rows = []
    with tarfile.open(out / name, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row_id, text, read in samples:
            found = inspect(read.data) if read.status == "ok" else _missing(read)
            suffix = SUFFIX.get(found.pop("format", "") or "", "img")
            rows.append({"row_id": row_id, "attempt": read.attempt, "http": read.http, **found})
            if found["status"] == "ok":
                _add(tar, f"{row_id:09d}.{suffix}", read.data or b"")
                _add(tar, f"{row_id:09d}.txt", text.encode())
    places = _places(out / name)
    for row in rows:
        row["offset"], row["size"] = places.get(row["row_id"], (None, None))
        row["shard"] = shard if row["status"] == "ok" else None
    flush(out / name)
    draft = _part(out, f".{name}")
    pq.write_table(pa.Table.from_pylist(rows, schema.IMAGES), draft)
    flush(draft)
    draft.replace(_part(out, name))


def _missing(read: Fetched) -> dict[str, Any]:
    return {"status": read.status, "error": read.error}


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
