"""The captions stage: any source to one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from xclr import schema
from xclr.captions import emoji, table
from xclr.captions.text import key
from xclr.recipe import DataConfig
from xclr.stages import CaptionsConfig, Produced, Progress, Stage


class Source(NamedTuple):
    """Where captioned pictures come from; both functions use one order of rows."""

    captions: Callable[[DataConfig], list[dict[str, Any]]]
    pictures: Callable[[DataConfig], Iterator[bytes | None]]


SOURCES: Mapping[str, Source] = {
    "emoji": Source(emoji.captions, emoji.pictures),
    "table": Source(table.captions, table.pictures),
}


def run(stage: Stage, out: Path, progress: Progress) -> Produced:
    """Write captions.parquet (dense row ids, exact duplicates marked) and, where there are any, annotations.parquet."""
    assert isinstance(stage.config, CaptionsConfig)
    records = SOURCES[stage.config.data.source].captions(stage.config.data)
    about = {"digest": stage.digest, "config": stage.identity}
    first: dict[bytes, int] = {}
    for row, record in enumerate(records):
        record["caption_key"] = key(record["caption"])
        earlier = first.setdefault(record["caption_key"], row)
        record |= {"row_id": row, "dataset": stage.config.data.source, "url": None}
        record["dup_of"] = earlier if earlier < row else None
    schema.write(pa.Table.from_pylist(records, schema.CAPTIONS), out / "captions.parquet", schema.CAPTIONS, about)
    files = ["captions.parquet"]
    if "subgroup" in records[0]:
        annotations = pa.Table.from_pylist(records, schema.ANNOTATIONS)
        schema.write(annotations, out / "annotations.parquet", schema.ANNOTATIONS, about)
        files.append("annotations.parquet")
    progress(len(records), len(records))
    splits = [record["split"] for record in records]
    stats = {"rows": len(records), "distinct": len(first)} | {name: splits.count(name) for name in sorted(set(splits))}
    stats.setdefault("train", 0)
    return Produced(tuple(files), stats)
