"""A person's own table of captions and pictures: Parquet, CSV, TSV or JSON lines."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xclr import tablefile
from xclr.captions.source import Records
from xclr.captions.text import CaptionCheck, described, key, share
from xclr.datafiles import Picture, located, reference, references, table_of
from xclr.errors import DataError
from xclr.recipe import DataConfig
from xclr.tablefile import Table

HELD_OUT_PICTURES = 0.10
KEY_BYTES = 16
ROW_ID = "row_id"  # an optional column that names the rows


def captions(data: DataConfig) -> Records:
    """One record a row; raises DataError for missing columns, no rows, repeated row ids, unusable captions."""
    table = table_of(data)
    folder = table.path.absolute().parent
    columns = _columns(data, table)
    check, kinds, keys = CaptionCheck(str(table.path), table.where), LabelKinds(data, table), bytearray()
    for row, (place, values) in enumerate(tablefile.rows(table, list(columns.values()), data.limit)):
        value = dict(zip(columns, values, strict=True))
        name = key("table", _text(value["id"], ROW_ID, table) or "" if "id" in value else str(row))
        keys += name
        picture = reference(value.get("image"), folder, lambda place=place: f"{table.path}: {table.where([place])}")  # type: ignore[misc]
        yield {
            "key": name,
            "caption": check.caption(place, value["caption"]),
            "label": kinds.label(place, value.get("label")),
            "split": _split(name),
            "url": picture if isinstance(picture, str) else None,
        }
    if not keys:
        raise DataError(f"{table.path} has no rows", "give a table with captioned pictures")
    check.finish()
    if "id" in columns:
        _check_unique(data, table, keys)
    return {}


def pictures(data: DataConfig) -> Iterator[Picture]:
    """The pictures in the order of `captions`, streamed."""
    return (picture for _, picture in references(data, table_of(data)))


def size(data: DataConfig) -> int:
    """How many rows there can be."""
    return tablefile.rows_at_most(tablefile.open_table(located(data)))


def _columns(data: DataConfig, table: Table) -> dict[str, str]:
    """The columns that captions come from, by what they hold; encoded pictures are left where they are."""
    columns = {"caption": data.caption_column}
    if data.label_column is not None:
        columns["label"] = data.label_column
    if table.types[data.image_column] == "text":
        columns["image"] = data.image_column
    return columns | ({"id": ROW_ID} if ROW_ID in table.types else {})


class LabelKinds:
    """Names of classes, and the first place of each kind of value, so that a mixture is found."""

    def __init__(self, data: DataConfig, table: Table) -> None:
        self.column, self.table = data.label_column, table
        self.first: dict[str, int] = {}

    def label(self, place: int, value: object) -> str | None:
        """The class's name; raises DataError for a value that cannot be one or is of another kind than the others."""
        if value is None or value == "":
            return None
        if isinstance(value, list | dict):
            raise DataError(
                f"{self.table.path}: the label is {described(value)} ({self.table.where([place])})", "give text or null"
            )
        kind = described(value)
        self.first.setdefault(kind, place)
        if len(self.first) > 1:
            seen = ", ".join(f"{each} ({self.table.where([at])})" for each, at in self.first.items())
            raise DataError(
                f"{self.table.path}: column {self.column!r} mixes types: {seen}", "write all labels in one way"
            )
        return _text(value, str(self.column), self.table)


def _text(value: object, column: str, table: Table) -> str | None:
    try:
        return None if value is None else value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{table.path}: values of column {column!r} are not UTF-8", "save the table as UTF-8"
        ) from error


def _check_unique(data: DataConfig, table: Table, keys: bytearray) -> None:
    numbers = np.frombuffer(bytes(keys), dtype=np.uint64).reshape(-1, KEY_BYTES // 8)
    order = np.lexsort((numbers[:, 1], numbers[:, 0]))
    same = (numbers[order][1:] == numbers[order][:-1]).all(axis=1)
    if not same.any():
        return
    again = int(order[1:][same].min())
    _, (name,) = list(tablefile.rows(table, [ROW_ID], again + 1))[-1]
    raise DataError(
        f"{table.path}: {int(same.sum())} row ids stand twice, first {name}",
        f"make {ROW_ID} unique, or drop the column",
    )


def _split(name: bytes) -> str:
    return "pictures" if share("picture", name.hex()) < HELD_OUT_PICTURES else "train"
