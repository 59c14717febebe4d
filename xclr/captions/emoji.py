"""The embedded data set: emoji of eight vendors, captioned by their Unicode names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from xclr.captions.source import Records, SourceReader, require
from xclr.captions.text import key, normalise, share
from xclr.files import Picture
from xclr.recipe import RECIPES, DataConfig

EMOJI_FILES = tuple(RECIPES / "data" / f"emoji48-{part}.parquet" for part in ("permissive", "openmoji"))

HELD_OUT_VENDOR = "openmoji"
HELD_OUT_CONCEPTS = 0.15  # share of the concepts never trained on
HELD_OUT_PICTURES = 0.10  # share of a vendor's drawings of the other concepts
TONED_IN_TRAINING = 1500  # skin tones would be half of the pictures otherwise


class Groups(NamedTuple):
    """The names that the numbers of subgroups and groups stand for."""

    subgroups: tuple[str, ...]
    groups: tuple[str, ...]


def captions(data: DataConfig) -> Records:
    """One record a picture, in an order that puts all drawings of a concept side by side."""
    records = _ordered(data, columns=["vendor", "hex", "label", "concept", "group", "subgroup", "tone", "base", "tags"])
    names = {column: _classes(records, column) for column in ("group", "subgroup")}
    kept = _toned_in_training(records)
    for each in records:
        yield {
            "key": key("emoji", each["vendor"], each["hex"]),
            "caption": normalise(each["label"]),
            "label": each["concept"],
            "split": _split(each, kept),
            "subgroup": names["subgroup"][each["subgroup"]],
            "group": names["group"][each["group"]],
            "tags": sorted(each["tags"]),
        }
    return {}


def pictures(data: DataConfig) -> Iterator[Picture]:
    """The encoded pictures in the order of `captions`."""
    for each in _ordered(data, columns=["vendor", "hex", "concept", "image"]):
        yield each["image"]


def taxonomy(data: DataConfig) -> Groups:
    """The names of the subgroups and groups that the records of `captions` number, in that order."""
    records = _ordered(data, columns=["vendor", "hex", "concept", "group", "subgroup"])
    return Groups(*(tuple(_classes(records, column)) for column in ("subgroup", "group")))


def size(data: DataConfig) -> int:
    """How many pictures there can be."""
    import pyarrow.parquet as pq

    return sum(int(pq.read_metadata(path).num_rows) for path in EMOJI_FILES)


def files(data: DataConfig) -> tuple[Path, ...]:
    """The embedded tables; raises DataError when one is missing."""
    return tuple(require(path, data.source) for path in EMOJI_FILES)


def _ordered(data: DataConfig, columns: list[str]) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [pq.read_table(path, columns=columns) for path in EMOJI_FILES]
    records: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    records.sort(key=lambda each: (share("order", each["concept"]), each["hex"], each["vendor"]))
    return records[: data.limit]


def _classes(records: list[dict[str, Any]], column: str) -> dict[str, int]:
    return {name: index for index, name in enumerate(sorted({each[column] for each in records}))}


def _held_out_concept(record: dict[str, Any]) -> bool:
    return share("concept", record["concept"]) < HELD_OUT_CONCEPTS


def _toned_in_training(records: list[dict[str, Any]]) -> set[tuple[str, str]]:
    toned = [
        each
        for each in records
        if each["tone"] and each["vendor"] != HELD_OUT_VENDOR and not _held_out_concept(each) and not _picture(each)
    ]
    toned.sort(key=lambda each: share("tone", each["vendor"], each["hex"]))
    return {(each["vendor"], each["hex"]) for each in toned[:TONED_IN_TRAINING]}


def _picture(record: dict[str, Any]) -> bool:
    return share("picture", record["vendor"], record["base"]) < HELD_OUT_PICTURES


def _split(record: dict[str, Any], toned: set[tuple[str, str]]) -> str:
    if record["tone"]:
        return "train" if (record["vendor"], record["hex"]) in toned else "unused"
    if _held_out_concept(record):
        return "unused" if record["vendor"] == HELD_OUT_VENDOR else "concepts"
    if record["vendor"] == HELD_OUT_VENDOR:
        return "vendor"
    return "pictures" if _picture(record) else "train"


READER = SourceReader(captions, size, pictures, files=files, spoken=lambda name: name.replace("-", " "))
