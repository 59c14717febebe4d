"""A person's own table of captions and pictures: Parquet, CSV, TSV or JSON lines.

A picture may have several captions: rows that name the same file or address, or a list in the column of captions. Each
becomes a row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from xclr.captions import tablefile
from xclr.captions.source import SEVERAL, Records, SourceReader, located
from xclr.captions.tablefile import Table
from xclr.captions.text import CaptionCheck, described, key, share
from xclr.errors import DataError
from xclr.files import Picture, is_text, is_url, stamp_of
from xclr.recipe import DataConfig

SHOWN = 3  # missing files named in a message

HELD_OUT_PICTURES = 0.10
KEY_BYTES = 16
ROW_ID = "row_id"  # an optional column that names the rows


def captions(data: DataConfig) -> Records:
    """One record a caption; raises DataError for missing columns, no rows, repeated row ids, unusable captions."""
    table = table_of(data)
    folder = table.path.absolute().parent
    columns = _columns(data, table)
    check, kinds, keys = CaptionCheck(str(table.path), table.where), LabelKinds(data, table), bytearray()
    for row, (place, values) in enumerate(tablefile.rows(table, list(columns.values()), data.limit)):
        value = dict(zip(columns, values, strict=True))
        own = _text(value["id"], ROW_ID, table) or "" if "id" in value else str(row)
        keys += key("table", own)
        picture = picture_path(value.get("image"), folder, lambda place=place: f"{table.path}: {table.where([place])}")  # type: ignore[misc]
        label = kinds.label(place, value.get("label"))
        for number, caption in enumerate(_each(value["caption"])):
            name = key("table", own if number == 0 else f"{own}/{number}")
            yield {
                "key": name,
                "caption": check.caption(place, caption),
                "label": label,
                "split": _split(name),
                "url": picture if isinstance(picture, str) else None,
                "picture": key("row", own) if picture is None else key("picture", str(picture)),
            }
    if not keys:
        raise DataError(f"{table.path} has no rows", "give a table with captioned pictures")
    check.finish()
    if "id" in columns:
        _check_unique(data, table, keys)
    return {}


def pictures(data: DataConfig) -> Iterator[Picture]:
    """The pictures in the order of `captions`, streamed: each as often as it has captions."""
    table = table_of(data)
    if not _may_have_several(data, table):
        yield from (picture for _, picture in picture_paths(data, table))
        return
    folder, columns = table.path.absolute().parent, [data.image_column, data.caption_column]
    for place, (value, captions) in tablefile.rows(table, columns, data.limit):
        picture = picture_path(value, folder, lambda place=place: f"{table.path}: {table.where([place])}")  # type: ignore[misc]
        for _ in _each(captions):
            yield picture


def captions_listing(data: DataConfig) -> str | None:
    """Which captions are of one picture, hashed, where a picture has several: the split goes by pictures then."""
    table = table_of(data)
    columns = [data.caption_column] if _may_have_several(data, table) else []
    columns += [data.image_column] if table.types[data.image_column] == "text" else []
    if not columns:
        return None
    found, several, seen = hashlib.sha256(), False, set[int]()
    for _, values in tablefile.rows(table, columns, data.limit):
        value = dict(zip(columns, values, strict=True))
        number = len(_each(value.get(data.caption_column)))
        picture = value.get(data.image_column)
        name = hash(picture.strip()) if isinstance(picture, str) and picture.strip() else None
        several = several or number > 1 or name in seen
        if name is not None:
            seen.add(name)
        found.update(f"{number} {picture}\n".encode(errors="replace"))
    return f"{SEVERAL}{found.hexdigest()}" if several else None


def _may_have_several(data: DataConfig, table: Table) -> bool:
    """Whether a row may have a list of captions."""
    return table.types[data.caption_column] == "texts" or table.ending in tablefile.JSON_LINES


def _each(value: object) -> Sequence[object]:
    """The captions of a row; none is one that is missing."""
    return (value or (None,)) if isinstance(value, list) else (value,)


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


def table_of(data: DataConfig) -> Table:
    """The opened table of a data source; raises DataError for columns that are not there or of no use."""
    table = tablefile.open_table(located(data))
    for field in ("caption_column", "image_column", "label_column"):
        column = getattr(data, field)
        if column is not None and column not in table.types:
            raise DataError(
                f"{table.path} has no column {column!r}",
                f"set data.{field} to one of: " + ", ".join(name for name in table.types if name.strip()),
            )
    kinds = {"text", "bytes"}
    for column, holds, may_be in (
        (data.caption_column, "text, or lists of text", kinds | {"texts"}),
        (data.image_column, "the pictures' bytes, paths or URLs", kinds),
    ):
        if table.types[column] not in may_be:
            raise DataError(f"{table.path}: column {column!r} holds {table.types[column]}", f"it must hold {holds}")
    return table


def picture_paths(data: DataConfig, table: Table) -> Iterator[tuple[int, Picture]]:
    """The place of each row and its picture, streamed; raises DataError for a value that is none of the four."""
    folder = table.path.absolute().parent
    for place, (value,) in tablefile.rows(table, [data.image_column], data.limit):
        yield place, picture_path(value, folder, lambda place=place: f"{table.path}: {table.where([place])}")  # type: ignore[misc]


def picture_path(value: object, folder: Path, where: Callable[[], str]) -> Picture:
    """A table's value as a picture: bytes, or text that is an address or a path starting at `folder`."""
    if value is None or isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not is_text(value):
        raise DataError(
            f"{where()}: the picture is {value!r}, not text", "give a path that starts at the table, a URL, or null"
        )
    text = value.strip()
    if not text:
        return None
    return text if is_url(text) else folder / text


def pictures_listing(data: DataConfig) -> str | None:
    """SHA-256 of the names, sizes and times of the files that a table names; raises DataError with those not there."""
    table = table_of(data)
    if table.types[data.image_column] != "text":
        return None
    missing: list[tuple[int, Path]] = []
    found, files, names = hashlib.sha256(), 0, table.path.absolute().parent
    for place, picture in picture_paths(data, table):
        if isinstance(picture, Path):
            files += 1
            entry = stamp_of(os.path.relpath(picture, names), picture)
            if entry is None:
                missing.append((place, picture))
            else:
                found.update(entry)
    if missing:
        first = "; ".join(f"{table.where([place])}: {path}" for place, path in missing[:SHOWN])
        raise DataError(
            f"{table.path}: {len(missing)} of {files} picture files are not there ({first}"
            + ("; ...)" if len(missing) > SHOWN else ")"),
            f"paths in column {data.image_column!r} start at {names}; addresses start with http:// or https://",
        )
    return found.hexdigest() if files else None


READER = SourceReader(
    captions,
    size,
    pictures,
    several=True,
    check=table_of,
    captions_listing=captions_listing,
    pictures_listing=pictures_listing,
)
