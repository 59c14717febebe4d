"""The captions stage: any source to one table, streamed."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from xclr import schema
from xclr.captions import conceptual, emoji, folder, imagenet, table
from xclr.captions.source import Record, Records, Source
from xclr.captions.text import key
from xclr.recipe import DataConfig
from xclr.stages import CaptionsConfig, Produced, Progress, Stage

SOURCES: Mapping[str, Source] = {
    "emoji": Source(emoji.captions, emoji.pictures, emoji.size),
    "table": Source(table.captions, table.pictures, table.size),
    "folder": Source(folder.captions, folder.pictures, folder.size),
    "cc3m": Source(conceptual.captions, conceptual.pictures, conceptual.size),
    "cc12m": Source(conceptual.captions, conceptual.pictures, conceptual.size),
    "imagenet": Source(imagenet.captions, folder.pictures, folder.size, imagenet.classes),
}
DRAFT = "draft"  # folder of the first pass
BATCH = 1 << 14  # rows in memory at once
LATER = ("dup_of", "label")  # columns that need all rows


class Seen:
    """What is kept of all rows: 16 bytes of caption key and 4 of label a row, and counts."""

    def __init__(self) -> None:
        self.keys = bytearray()
        self.labels = array("i")
        self.names: dict[str, int] = {}
        self.splits: Counter[str] = Counter()
        self.extra: dict[str, Any] = {}

    def add(self, records: Sequence[Record]) -> None:
        """Take note of some rows."""
        for each in records:
            self.keys += each["caption_key"]
            label = each["label"]
            self.labels.append(-1 if label is None else self.names.setdefault(label, len(self.names)))
            self.splits[each["split"]] += 1

    def following(self, records: Records) -> Generator[Record, None, None]:
        """The records, whose own stats are kept when they end."""
        self.extra = yield from records

    def stats(self, distinct: int) -> dict[str, Any]:
        """Numbers worth showing."""
        counts = {name: self.splits[name] for name in sorted(self.splits)}
        stats = {"rows": len(self.labels), "distinct": distinct} | counts | self.extra
        stats.setdefault("train", 0)
        return stats


def run(stage: Stage, out: Path, progress: Progress) -> Produced:
    """Write captions.parquet (dense row ids, exact duplicates marked) and, where there are any, classes.parquet, which
    says what the labels stand for, and annotations.parquet.

    Two passes, because duplicates and numbers of classes need all rows: memory grows by 20 bytes a row.
    """
    assert isinstance(stage.config, CaptionsConfig)
    data = stage.config.data
    about = {"digest": stage.digest, "config": stage.identity}
    (out / DRAFT).mkdir(exist_ok=True)
    seen = Seen()
    _first_pass(data, out / DRAFT / "captions.parquet", seen, progress)
    firsts = first_rows(seen.keys)
    labels = by_name(seen.labels, seen.names)
    _second_pass(out, firsts, labels, about)
    files = ["captions.parquet"]
    if seen.names:
        _write_classes(data, sorted(seen.names), out / "classes.parquet", about)
        files.append("classes.parquet")
    if data.source == "emoji":
        _annotate(data, out / "annotations.parquet", about)
        files.append("annotations.parquet")
    progress(len(firsts), len(firsts))
    return Produced(tuple(files), seen.stats(int((firsts == np.arange(len(firsts))).sum())), (DRAFT,))


def first_rows(keys: bytes | bytearray) -> npt.NDArray[np.int64]:
    """For each row [n] the first row with the same key; `keys` holds 16 bytes a row."""
    halves = np.frombuffer(keys, dtype=np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: equal keys stay in the order of rows
    ordered = halves[order]
    starts = np.ones(len(order), dtype=np.bool_)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    firsts = np.empty(len(order), dtype=np.int64)
    firsts[order] = order[starts][np.cumsum(starts) - 1]
    return firsts


def by_name(labels: Sequence[int], names: Mapping[str, int]) -> npt.NDArray[np.int32]:
    """Labels numbered in the order in which their names came, numbered in the order of the names; -1 stays."""
    numbers = np.empty(len(names) + 1, dtype=np.int32)
    for number, name in enumerate(sorted(names)):
        numbers[names[name]] = number
    numbers[-1] = -1
    return numbers[np.asarray(labels, dtype=np.int64)]


def _first_pass(data: DataConfig, draft: Path, seen: Seen, progress: Progress) -> None:
    names = [name for name in schema.CAPTIONS.names if name not in LATER]
    columns = pa.schema([schema.CAPTIONS.field(name) for name in names])
    source = SOURCES[data.source]
    size = source.size(data)
    size = min(size, data.limit or size)
    with pq.ParquetWriter(draft, columns, compression="zstd") as writer:
        for records in _batches(seen.following(source.captions(data))):
            row = len(seen.labels)
            for row_id, record in enumerate(records, start=row):
                record["caption_key"] = key(record["caption"])
                record |= {"row_id": row_id, "dataset": data.source}
            seen.add(records)
            writer.write_table(pa.Table.from_pylist(records, columns))
            progress(len(seen.labels), max(size, len(seen.labels) + 1))


def _second_pass(
    out: Path, firsts: npt.NDArray[np.int64], labels: npt.NDArray[np.int32], about: Mapping[str, Any]
) -> None:
    row = 0
    with schema.writing(out / "captions.parquet", schema.CAPTIONS, about) as write:
        for batch in pq.ParquetFile(out / DRAFT / "captions.parquet").iter_batches(BATCH):
            rows = slice(row, row + batch.num_rows)
            own = np.arange(rows.start, rows.stop)
            later = {
                "dup_of": pa.array(firsts[rows], mask=firsts[rows] == own),
                "label": pa.array(labels[rows], mask=labels[rows] < 0),
            }
            columns = {name: later[name] if name in later else batch.column(name) for name in schema.CAPTIONS.names}
            write(pa.table(columns, schema=schema.CAPTIONS))
            row = rows.stop


def _write_classes(data: DataConfig, labels: Sequence[str], path: Path, about: Mapping[str, Any]) -> None:
    names, synsets = zip(*SOURCES[data.source].classes(data, labels), strict=True)
    columns = {"label": range(len(labels)), "name": names, "synset": synsets}
    schema.write(pa.table(columns, schema=schema.CLASSES), path, schema.CLASSES, about)


def _annotate(data: DataConfig, path: Path, about: Mapping[str, Any]) -> None:
    records = [{"row_id": row, **record} for row, record in enumerate(SOURCES[data.source].captions(data))]
    schema.write(pa.Table.from_pylist(records, schema.ANNOTATIONS), path, schema.ANNOTATIONS, about)


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(islice(records, BATCH)):
        yield batch
