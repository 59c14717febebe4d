"""A person's own Parquet table of captions and encoded pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xclr.captions.text import decode_captions, key, share
from xclr.errors import DataError
from xclr.recipe import DataConfig
from xclr.stages import source_files

HELD_OUT_PICTURES = 0.10
ROW_ID = "row_id"  # an optional column that names the rows


def captions(data: DataConfig) -> list[dict[str, Any]]:
    """One record a row; raises DataError for missing columns, no rows, repeated row ids, unusable captions."""
    file = _open(data)
    wanted = [data.caption_column, *([data.label_column] if data.label_column else [])]
    named = ROW_ID in file.schema_arrow.names
    try:
        table = file.read(columns=[*wanted, *([ROW_ID] if named else [])]).slice(0, data.limit)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{data.path} is damaged: {error}", "write the table again") from error
    if table.num_rows == 0:
        raise DataError(f"{data.path} has no rows", "give a table with captioned pictures")
    texts = decode_captions(_binary(table.column(data.caption_column)), str(data.path))
    ids = _row_ids(table, data) if named else [str(row) for row in range(table.num_rows)]
    labels = _labels(_texts(table, data.label_column, data)) if data.label_column else [None] * table.num_rows
    keys = [key("table", each) for each in ids]
    return [
        {"key": name, "caption": text, "label": label, "split": _split(name)}
        for name, text, label in zip(keys, texts, labels, strict=True)
    ]


def pictures(data: DataConfig) -> Iterator[bytes | None]:
    """The encoded pictures in the order of `captions`, streamed."""
    left = data.limit
    for batch in _open(data).iter_batches(batch_size=256, columns=[data.image_column]):
        values = batch.column(0).to_pylist()[:left]
        left = None if left is None else left - len(values)
        yield from values


def _open(data: DataConfig) -> pq.ParquetFile:
    (path,) = source_files(data)
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file", "convert it, for example with pandas' to_parquet") from error
    there = file.schema_arrow.names
    for field in ("caption_column", "image_column", "label_column"):
        column = getattr(data, field)
        if column is not None and column not in there:
            raise DataError(f"{path} has no column {column!r}", f"set data.{field} to one of: " + ", ".join(there))
    kind = file.schema_arrow.field(data.image_column).type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(f"{path}: column {data.image_column!r} holds {kind}", "it must hold the pictures' bytes")
    return file


def _binary(column: pa.ChunkedArray[Any]) -> list[object]:
    kind = column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return list(column.cast(pa.large_binary()).to_pylist() if text else column.to_pylist())


def _row_ids(table: pa.Table, data: DataConfig) -> list[str]:
    ids = _texts(table, ROW_ID, data)
    repeated = [name for name, times in Counter(ids).items() if times > 1]
    if repeated:
        raise DataError(
            f"{data.path}: {len(repeated)} row ids stand twice, first {repeated[0]}",
            f"make {ROW_ID} unique, or drop the column",
        )
    return ids


def _texts(table: pa.Table, column: str, data: DataConfig) -> list[Any]:
    try:
        values = [each.decode() if isinstance(each, bytes) else each for each in _binary(table.column(column))]
    except UnicodeDecodeError as error:
        raise DataError(f"{data.path}: values of column {column!r} are not UTF-8", "save the table as UTF-8") from error
    return [None if each is None else str(each) for each in values]


def _labels(values: list[str | None]) -> list[int | None]:
    index = {name: number for number, name in enumerate(sorted({each for each in values if each is not None}))}
    return [None if each is None else index[each] for each in values]


def _split(name: bytes) -> str:
    return "pictures" if share("picture", name.hex()) < HELD_OUT_PICTURES else "train"
