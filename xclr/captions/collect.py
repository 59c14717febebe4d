"""The captions stage: any source to one table, streamed."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from xclr import schema
from xclr.captions.shared import NAMES, SCENES, SHARED
from xclr.captions.source import Record, Records, reader_of
from xclr.captions.stages import CaptionsConfig
from xclr.captions.text import key
from xclr.recipe import SOURCES, DataConfig
from xclr.stage import Produced, Progress, Stage

DRAFT = "draft"  # folder of the first pass
PLACES = "places.parquet"
BESIDE = {  # tables with what records say beside the captions
    PLACES: schema.PLACES,
    NAMES: schema.NAMES,
    SCENES: schema.SCENES,
}
BATCH = 1 << 14  # rows in memory at once
LATER = ("row_id", "dup_of", "label")  # columns that need all rows


class Keys:
    """Keys of 16 bytes on disk, in two halves: of 12 million each half is 99 MB."""

    def __init__(self, path: Path) -> None:
        self.halves = path.with_suffix(".first"), path.with_suffix(".second")
        for each in self.halves:
            each.write_bytes(b"")

    def add(self, keys: Iterable[bytes]) -> None:
        """Append some."""
        numbers = np.frombuffer(b"".join(keys), dtype=np.uint64).reshape(-1, 2)
        for half, path in enumerate(self.halves):
            with path.open("ab") as stream:
                stream.write(numbers[:, half].tobytes())

    def half(self, which: int, stays: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.uint64]:
        """The first (0) or second (1) halves of those that stay."""
        numbers = np.fromfile(self.halves[which], dtype=np.uint64)
        return numbers if stays is None else numbers[stays]


class Seen:
    """What is kept of all rows: labels and splits, 5 bytes a row, in memory, keys on disk."""

    def __init__(self, draft: Path, *, addresses: bool, pictures: bool) -> None:
        self.captions = Keys(draft / "captions")
        self.addresses = Keys(draft / "addresses") if addresses else None
        self.pictures = Keys(draft / "pictures") if pictures else None
        self.labels, self.splits = array("i"), array("b")
        self.split_names: dict[str, int] = {}
        self.names: dict[str, int] = {}
        self.extra: dict[str, Any] = {}

    def add(self, records: Sequence[Record]) -> None:
        """Take note of some rows."""
        self.captions.add(each["caption_key"] for each in records)
        if self.addresses is not None:
            self.addresses.add(key(each["url"]) for each in records)
        if self.pictures is not None:
            self.pictures.add(each["picture"] for each in records)
            numbers = self.split_names
            self.splits.extend(numbers.setdefault(each["split"], len(numbers)) for each in records)
        for each in records:
            label = each["label"]
            self.labels.append(-1 if label is None else self.names.setdefault(label, len(self.names)))

    def following(self, records: Records) -> Generator[Record, None, None]:
        """The records, whose own stats are kept when they end."""
        self.extra = yield from records


class Rows(NamedTuple):
    """What all rows together say of each [n]: whether it stays, its row id, the first row id with its caption.

    And, where some picture has several rows, the first row with its picture.
    """

    stays: npt.NDArray[np.bool_]
    ids: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64]
    pictures: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(cls, seen: Seen) -> Rows:
        """Leave out rows whose address stood before, number the others, find the first of each caption among them."""
        number = len(seen.labels)
        if seen.addresses is None:
            pictures = None if seen.pictures is None else first_rows(seen.pictures)
            if pictures is not None and np.array_equal(pictures, np.arange(number)):
                pictures = None
            return cls(np.ones(number, dtype=np.bool_), np.arange(number), first_rows(seen.captions), pictures)
        stays = first_rows(seen.addresses) == np.arange(number)
        firsts = np.zeros(number, dtype=np.int64)
        firsts[stays] = first_rows(seen.captions, stays)
        return cls(stays, np.cumsum(stays, dtype=np.int64) - 1, firsts)


def run(stage: Stage[CaptionsConfig], out: Path, progress: Progress) -> Produced:
    """Write captions.parquet (dense row ids, exact duplicates marked) and, where there are any, classes.parquet, which
    says what the labels stand for, annotations.parquet, places.parquet, which says where in tars the pictures lie, and
    shared_pictures.parquet, where pictures have several captions: all are in the split of the first; and names.parquet,
    which says what people call the rows and their pictures; and scenes.parquet, what is true of those that are drawn.

    Two passes, because duplicates and numbers of classes need all rows: memory grows by some 50 bytes a row.
    """
    data, about = stage.config.data, {"digest": stage.digest, "config": stage.identity}
    (out / DRAFT).mkdir(exist_ok=True)
    reader = reader_of(data.source)
    seen = Seen(out / DRAFT, addresses=reader.unique_urls, pictures=reader.several)
    beside = _first_pass(data, out / DRAFT, seen, progress)
    rows = Rows.of(seen)
    splits = _second_pass(out, rows, seen, about)
    files = ["captions.parquet"]
    if rows.pictures is not None:
        shared = pa.table([rows.ids, rows.pictures], schema=schema.SHARED_PICTURES)
        schema.write(shared, out / SHARED, schema.SHARED_PICTURES, about)
        files.append(SHARED)
    for name in beside:
        _write_beside(out, name, about)
        files.append(name)
    if seen.names:
        _write_classes(data, sorted(seen.names), out / "classes.parquet", about)
        files.append("classes.parquet")
    if SOURCES[data.source].annotated:
        _annotate(data, out / "annotations.parquet", about)
        files.append("annotations.parquet")
    total = int(rows.stays.sum())
    progress(total, total)
    return Produced(tuple(files), _stats(seen, rows, splits), (DRAFT,))


def _stats(seen: Seen, rows: Rows, splits: Mapping[str, int]) -> dict[str, Any]:
    total = int(rows.stays.sum())
    distinct = int((rows.firsts == rows.ids)[rows.stays].sum())
    counts = {name: splits[name] for name in sorted(splits)}
    again = {} if seen.addresses is None else {"repeated_urls": len(rows.stays) - total}
    if rows.pictures is not None:
        own = np.unique(rows.pictures)
        train = np.asarray(seen.splits, dtype=np.int8)[own] == seen.split_names.get("train", -1)
        again |= {"pictures_shown": len(own), "train_pictures": int(train.sum())}
    return {"train": 0, "rows": total, "distinct": distinct} | counts | seen.extra | again


def first_rows(keys: Keys, stays: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
    """For each row [n] of those that stay the first one with the same key, both numbered among these."""
    numbers = keys.half(0, stays)
    order = np.argsort(numbers, kind="stable")  # equal keys stay in the order of rows
    numbers = numbers[order]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = numbers[1:] != numbers[:-1]
    del numbers
    others = keys.half(1, stays)[order]
    if (~new[1:] & (others[1:] != others[:-1])).any():  # 64 bits were not enough to tell keys apart
        del others
        order = np.lexsort((keys.half(1, stays), keys.half(0, stays)))
        numbers, others = keys.half(0, stays)[order], keys.half(1, stays)[order]
        new[1:] = (numbers[1:] != numbers[:-1]) | (others[1:] != others[:-1])
    del others
    place = np.cumsum(new, dtype=np.int32) - 1
    firsts = np.empty(len(order), dtype=np.int64)
    firsts[order] = order[new][place]
    return firsts


def by_name(labels: Sequence[int], names: Mapping[str, int]) -> npt.NDArray[np.int32]:
    """Labels numbered in the order in which their names came, numbered in the order of the names; -1 stays."""
    numbers = np.empty(len(names) + 1, dtype=np.int32)
    for number, name in enumerate(sorted(names)):
        numbers[names[name]] = number
    numbers[-1] = -1
    return numbers[np.asarray(labels, dtype=np.int64)]


def _first_pass(data: DataConfig, draft: Path, seen: Seen, progress: Progress) -> list[str]:
    """Write what each row says by itself; the tables of `BESIDE` of which rows say something."""
    columns = pa.schema([field for field in schema.CAPTIONS if field.name not in LATER])
    source = reader_of(data.source)
    size = source.size(data)
    size = min(size, data.limit or size)
    said: list[str] = []
    with ExitStack() as stack:
        beside = {
            name: stack.enter_context(pq.ParquetWriter(draft / name, kind, compression="zstd"))
            for name, kind in BESIDE.items()
        }
        writer = stack.enter_context(pq.ParquetWriter(draft / "captions.parquet", columns, compression="zstd"))
        for records in _batches(seen.following(source.captions(data))):
            for record in records:
                record["caption_key"] = key(record["caption"])
                record["dataset"] = data.source
            for name, table in _beside(records, len(seen.labels)).items():
                beside[name].write_table(table)
                said += (
                    [name]
                    if name not in said and any(each.null_count < len(records) for each in table.columns[1:])
                    else []
                )
            seen.add(records)
            writer.write_table(pa.Table.from_pylist(records, columns))
            progress(len(seen.labels), max(size, len(seen.labels) + 1))
    return said


def _beside(records: Sequence[Record], first: int) -> dict[str, pa.Table]:
    """Where in files the pictures of rows lie, and what people call the rows, where the source tells it."""
    rows, found = range(first, first + len(records)), {}
    if "place" in records[0]:
        found[PLACES] = pa.table([rows, *zip(*(each["place"] for each in records), strict=True)], schema=schema.PLACES)
    if "path" in records[0]:
        names = [[each.get("id") for each in records], [each["path"] for each in records]]
        found[NAMES] = pa.table([rows, *names], schema=schema.NAMES)
    if "scene" in records[0]:
        scenes = [{"row_id": row, **each["scene"]} for row, each in zip(rows, records, strict=True)]
        found[SCENES] = pa.Table.from_pylist(scenes, schema.SCENES)
    return found


def _second_pass(out: Path, rows: Rows, seen: Seen, about: Mapping[str, Any]) -> Counter[str]:
    """Write captions.parquet; rows of each split."""
    row, splits, labels = 0, Counter[str](), by_name(seen.labels, seen.names)
    names, numbers = pa.array(list(seen.split_names)), np.asarray(seen.splits, dtype=np.int8)
    with schema.writing(out / "captions.parquet", schema.CAPTIONS, about) as write:
        for batch in _row_groups(out / DRAFT / "captions.parquet"):
            these = slice(row, row + batch.num_rows)
            row = these.stop
            ids, firsts = rows.ids[these], rows.firsts[these]
            later = {
                "row_id": pa.array(ids),
                "dup_of": pa.array(firsts, mask=firsts == ids),
                "label": pa.array(labels[these], mask=labels[these] < 0),
            }
            if rows.pictures is not None:
                later["split"] = names.take(pa.array(numbers[rows.pictures[these]]))
            columns = {name: later[name] if name in later else batch.column(name) for name in schema.CAPTIONS.names}
            table = pa.table(columns, schema=schema.CAPTIONS)
            table = table if rows.stays[these].all() else table.filter(pa.array(rows.stays[these]))
            splits.update({each["values"]: each["counts"] for each in table["split"].value_counts().to_pylist()})
            write(table)
    return splits


def _row_groups(path: Path) -> Iterator[pa.Table]:
    """The parts of a table as they were written; iter_batches keeps memory of all: 0.9 GB of CC12M."""
    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        yield file.read_row_group(group)


def _write_beside(out: Path, name: str, about: Mapping[str, Any]) -> None:
    with schema.writing(out / name, BESIDE[name], about) as write:
        for batch in _row_groups(out / DRAFT / name):
            write(batch)


def _write_classes(data: DataConfig, labels: Sequence[str], path: Path, about: Mapping[str, Any]) -> None:
    names, synsets = zip(*reader_of(data.source).classes(data, labels), strict=True)
    columns = {"label": range(len(labels)), "name": names, "synset": synsets}
    schema.write(pa.table(columns, schema=schema.CLASSES), path, schema.CLASSES, about)


def _annotate(data: DataConfig, path: Path, about: Mapping[str, Any]) -> None:
    records = [{"row_id": row, **record} for row, record in enumerate(reader_of(data.source).captions(data))]
    schema.write(pa.Table.from_pylist(records, schema.ANNOTATIONS), path, schema.ANNOTATIONS, about)


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(islice(records, BATCH)):
        yield batch
