"""The images stage: every picture checked, accounted for and packed into tars that other tools read."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import struct
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from xclr import schema
from xclr.captions import SOURCES
from xclr.errors import DataError
from xclr.images.fetch import Limits, Outcome
from xclr.images.obtain import Breaker, obtain
from xclr.images.read import opened
from xclr.stages import ImagesConfig, Produced, Progress, Stage

SHARD_ROWS = 10_000
MIN_SIDE = 8  # pixels
PARTS = "parts"  # folder of the finished shards' rows
UNREADABLE = (  # what Pillow raises on broken bytes
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    EOFError,
    TypeError,
    LookupError,
    struct.error,
    Image.DecompressionBombError,
)
SUFFIX = {"WEBP": "webp", "PNG": "png", "JPEG": "jpg", "MPO": "jpg", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
Sample = tuple[int, tuple[str, Outcome]]  # row id, caption and picture


def run(stage: Stage, out: Path, progress: Progress, shard_rows: int = SHARD_ROWS) -> Produced:
    """Write shard-00000.tar ... (<row_id>.<suffix> and .txt, the WebDataset layout) and images.parquet.

    images.parquet has one row for every captions row, whatever the picture is like; `offset` and `size` locate the
    encoded picture inside the shard. A run that was interrupted goes on with the first unfinished shard. Raises
    DataError when the network is down, when no picture can be used, or when the source has changed meanwhile.
    """
    assert isinstance(stage.config, ImagesConfig)
    data = stage.config.data
    captions = pq.ParquetFile(stage.inputs["captions"].path / "captions.parquet")
    total = captions.metadata.num_rows
    names = [f"shard-{shard:05d}.tar" for shard in range(-(-total // shard_rows))]
    (out / PARTS).mkdir(exist_ok=True)
    done = next((shard for shard, name in enumerate(names) if not _finished(out, name)), len(names))
    texts = islice(_texts(captions), done * shard_rows, None)
    pictures = islice(SOURCES[data.source].pictures(data), done * shard_rows, None)
    with closing(obtain(pictures, Limits(allow_hosts=data.reachable))) as outcomes:
        samples = enumerate(_pairs(texts, Breaker().watch(outcomes)), start=done * shard_rows)
        for shard, name in enumerate(names[done:], start=done):
            rows = _pack(out / name, shard, _counted(islice(samples, shard_rows), progress, total))
            _write_part(pa.Table.from_pylist(rows, schema.IMAGES), _part(out, name))
        next(samples, None)  # there is none, or an error
    about = {"digest": stage.digest, "config": stage.identity}
    stats = _assemble(out, names, about)
    _judge(out, stats)
    return Produced(("images.parquet", *names), stats, (PARTS,))


def inspect(data: bytes | None) -> dict[str, Any]:
    """Status, size and format of an encoded picture: the columns of an images row; never raises on bad bytes."""
    found: dict[str, Any] = {"bytes": len(data or b""), "sha256": hashlib.sha256(data or b"").hexdigest()}
    if not data:
        return found | {"status": "decode", "error": "no bytes"}
    try:
        with opened(data) as picture:
            picture.load()
            found |= {"width": picture.width, "height": picture.height, "format": picture.format}
    except UNREADABLE as error:
        return found | {"status": "decode", "error": f"{type(error).__name__}: {error}"[:200]}
    if min(found["width"], found["height"]) < MIN_SIDE:
        return found | {"status": "too_small", "error": f"{found['width']} x {found['height']}"}
    return found | {"status": "ok"}


def _texts(captions: pq.ParquetFile) -> Iterator[str]:
    for batch in captions.iter_batches(SHARD_ROWS, columns=["caption"]):
        yield from batch.column(0).to_pylist()


def _pairs(texts: Iterable[str], outcomes: Iterable[Outcome]) -> Iterator[tuple[str, Outcome]]:
    """Captions with their pictures; raises DataError when there are not as many of both."""
    for text, outcome in zip_longest(texts, outcomes):
        if text is None or outcome is None:
            few = "fewer" if outcome is None else "more"
            raise DataError(f"the source now has {few} pictures than captions: it has changed meanwhile", "run again")
        yield text, outcome


def _counted(samples: Iterable[Sample], progress: Progress, total: int) -> Iterator[Sample]:
    for sample in samples:
        yield sample
        progress(sample[0] + 1, total)


def _pack(path: Path, shard: int, samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """Write a tar and flush it to disk; the rows of the images table that describe it."""
    rows = []
    with path.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for row_id, (text, outcome) in samples:
                found = _account(outcome)
                suffix = SUFFIX.get(found.pop("format", "") or "", "img")
                rows.append({"row_id": row_id, "attempt": outcome.attempt, "http": outcome.http, **found})
                if found["status"] == "ok":
                    _add(tar, f"{row_id:09d}.{suffix}", outcome.data)
                    _add(tar, f"{row_id:09d}.txt", text.encode())
        file.flush()
        os.fsync(file.fileno())
    places = _places(path)
    for row in rows:
        row["offset"], row["size"] = places.get(row["row_id"], (None, None))
        row["shard"] = shard if row["status"] == "ok" else None
    return rows


def _account(outcome: Outcome) -> dict[str, Any]:
    """The columns of an images row that say what a picture is, or why there is none."""
    return inspect(outcome.data) if outcome.status == "ok" else {"status": outcome.status, "error": outcome.error}


def _part(out: Path, name: str) -> Path:
    return out / PARTS / Path(name).with_suffix(".parquet")


def _finished(out: Path, name: str) -> bool:
    return (out / name).is_file() and _part(out, name).is_file()


def _write_part(table: pa.Table, path: Path) -> None:
    """Make a shard's rows visible, last of all and at once: who finds them finds the whole shard."""
    draft = path.with_suffix(".draft")
    schema.write(table, draft, schema.IMAGES, {})
    for each in (draft, path.parent.parent):  # rows, and the names of the tars
        _flush(each)
    draft.replace(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _assemble(out: Path, names: list[str], about: dict[str, Any]) -> dict[str, int]:
    """Join the shards' rows to images.parquet; rows by status, and bytes downloaded where any were."""
    counts: Counter[str] = Counter()
    downloaded = 0
    with schema.writing(out / "images.parquet", schema.IMAGES, about) as write:
        for name in names:
            table = schema.read(_part(out, name), schema.IMAGES)
            write(table)
            counts.update(table.column("status").to_pylist())
            downloaded += pc.sum(table.filter(pc.is_valid(table.column("http"))).column("bytes")).as_py() or 0
    stats = {"rows": counts.total()} | {status: counts[status] for status in sorted(counts)}
    return stats | ({"downloaded_bytes": downloaded} if downloaded else {})


def _judge(out: Path, stats: dict[str, int]) -> None:
    """Raise DataError when no picture can be used, and say so when most cannot."""
    usable, total = stats.get("ok", 0), stats["rows"]
    lost = sorted(((stats[each], each) for each in schema.STATUSES if each != "ok" and each in stats), reverse=True)
    said = ", ".join(f"{count:,} {status}" for count, status in lost)
    if not usable:
        first = pq.ParquetFile(out / "images.parquet").read_row_group(0, columns=["error"]).column("error")[0]
        shutil.rmtree(out / PARTS)  # of no use: a run after the remedy tries every picture again
        raise DataError(
            f"none of the {total:,} pictures can be used: {said}; the first: {first}",
            "mend the image column (data.image_column), or what keeps its pictures from being read, and run again",
        )
    if 2 * usable < total:
        print(f"only {usable:,} of {total:,} pictures can be used: {said}", file=sys.stderr)


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
