"""The pictures of a folder, a table or tars: found without being decoded, each with its name and its place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from xclr.captions import tablefile
from xclr.captions.folder import pictures_below
from xclr.captions.table import picture_path
from xclr.captions.tablefile import Table
from xclr.captions.wds import Member, members
from xclr.errors import DataError
from xclr.files import SUFFIXES, Inside, Picture, hash_listing, is_text, stamp_of

IMAGE = "image"  # the column of a table that holds its pictures, unless another is named
TAR = ".tar"
TAKEN = frozenset({"file", "row", "vector"})  # columns of what is made of the pictures
KINDS = "a folder, a tar, a picture, or a table (" + ", ".join(f"*{each}" for each in tablefile.ENDINGS) + ")"


class Found(NamedTuple):
    """A picture of a source."""

    file: str | None  # below the folder, in the tar or as the table calls it; None where that has no name for it
    row: int  # its place in the source, from 0
    picture: Picture
    name: str | int | None = None  # by which its table knows it

    def __str__(self) -> str:
        return f"row {self.row}" if self.file is None else self.file


@dataclass(frozen=True, eq=False)
class Listing:
    """The pictures of a source: `found` streams them in an order that lasts as long as `stamp` is the same.

    most: how many there can be. stamp: hash of names, sizes and times of change. name: the column that a table knows
    its pictures by.
    """

    place: Path
    most: int
    stamp: str
    found: Callable[[], Iterator[Found]]
    name: pa.Field | None = None


def list_pictures(place: Path | str, image_column: str | None = None, id_column: str | None = None) -> Listing:
    """What pictures there are at a place.

    place: a folder of pictures at any depth, or of tars; a tar; a picture; a table, with pictures, or paths that start
    at it, in `image_column` [default: image] and perhaps names of its own in `id_column`. Raises DataError for a place
    without pictures, for addresses, which nobody fetches here, and for columns that are not there or of no use.
    """
    if isinstance(place, str) and "://" in place:
        raise DataError(f"{place} is an address, and nothing is fetched here", f"fetch it, and name {KINDS}")
    path = Path(place)
    if not path.exists():
        raise DataError(f"{path} is not there", f"name {KINDS}")
    if path.is_file() and tablefile.ending_of(path) is not None:
        return _of_table(path, image_column or IMAGE, id_column)
    if named := image_column or id_column:
        raise DataError(f"{path} is no table and has no column {named!r}", "leave that option out")
    if path.is_dir():
        return _of_folder(path)
    if path.suffix.lower() == TAR:
        return _of_tars(path, [path])
    if path.suffix.lower() in SUFFIXES:
        return _of_files(path.parent, [path.name], path)
    raise DataError(f"{path}: the ending does not tell what it holds", f"name {KINDS}")


def _of_folder(root: Path) -> Listing:
    names, tars = sorted(pictures_below(root)), sorted(root.rglob(f"*{TAR}"))
    if names and tars:
        raise DataError(
            f"{root} holds {len(names)} pictures and {len(tars)} tars, first {tars[0]}", "name one or the other"
        )
    if not names and not tars:
        endings = ", ".join(sorted(SUFFIXES))
        raise DataError(f"{root} holds no pictures", f"pictures end in {endings}; {KINDS} can be named")
    return _of_files(root, names, root) if names else _of_tars(root, tars)


def _of_files(root: Path, names: list[str], place: Path) -> Listing:
    if broken := [name for name in names if not is_text(name)]:
        raise DataError(f"{root}: {len(broken)} file names are not UTF-8, first {broken[0]!r}", "rename these files")

    def found() -> Iterator[Found]:
        return (Found(name, row, root / name) for row, name in enumerate(names))

    return Listing(place, len(names), hash_listing((name, root / name) for name in names), found)


def _of_tars(place: Path, tars: list[Path]) -> Listing:
    """Names begin with that of the tar where the place is a folder; no list of them is held."""
    above = [f"{tar.relative_to(place).as_posix()}/" if tar != place else "" for tar in tars]

    def found() -> Iterator[Found]:
        inside = ((f"{name}{each.name}", tar, each) for name, tar in zip(above, tars, strict=True) for each in _in(tar))
        for row, (name, tar, each) in enumerate(inside):
            yield Found(name, row, Inside(tar, each.offset, each.size))

    most = sum(1 for _ in found())
    if not most:
        endings = ", ".join(sorted(SUFFIXES))
        raise DataError(f"{place} holds no pictures: none of {len(tars)} tars has any", f"pictures end in {endings}")
    return Listing(place, most, hash_listing(zip(above, tars, strict=True)), found)


def _in(tar: Path) -> Iterator[Member]:
    return (each for each in members(tar) if each is not None and each.name.suffix.lower() in SUFFIXES)


def _of_table(path: Path, image_column: str, id_column: str | None) -> Listing:
    table = tablefile.open_table(path)
    name = _checked(table, image_column, id_column)
    columns = {"image": image_column} if id_column is None else {"image": image_column, "name": id_column}
    if f"{image_column}.path" in table.types:
        columns["path"] = f"{image_column}.path"  # what a picture is called that the table itself holds

    def found() -> Iterator[Found]:
        for row, (place, values) in enumerate(tablefile.rows(table, list(columns.values()))):
            yield _of_row(table, row, place, dict(zip(columns, values, strict=True)))

    if table.types[image_column] == "text":
        most, stamp = _of_named_files(path, found())
    else:
        most, stamp = tablefile.rows_at_most(table), hash_listing([(path.name, path)])
    if not most:
        raise DataError(f"{path} has no rows", "give a table with pictures")
    return Listing(path, most, hashlib.sha256(f"{columns} {stamp}".encode()).hexdigest(), found, name)


def _checked(table: Table, image_column: str, id_column: str | None) -> pa.Field | None:
    """The field of the table's own names; raises DataError for a column that is not there or of no use."""
    for option, column in (("--image-column", image_column), ("--id-column", id_column)):
        if column is not None and column not in table.types:
            there = ", ".join(name for name in table.types if name.strip())
            raise DataError(f"{table.path} has no column {column!r}", f"set {option} to one of: {there}")
    if (kind := table.types[image_column]) not in {"text", "bytes"}:
        raise DataError(
            f"{table.path}: column {image_column!r} holds {kind}", "it must hold the pictures' bytes or paths"
        )
    if id_column is None:
        return None
    if id_column in TAKEN:
        raise DataError(
            f"{table.path}: a column {id_column!r} is made here, too", "give that of the table another name"
        )
    kind = table.types[id_column]
    if kind != "text" and "int" not in kind:
        raise DataError(f"{table.path}: column {id_column!r} holds {kind}", "names are text or whole numbers")
    return pa.field(id_column, pa.string() if kind == "text" else pa.type_for_alias(kind))


def _of_row(table: Table, row: int, place: int, value: Mapping[str, object]) -> Found:
    """A row's picture; `place` is where a person finds it."""

    def where() -> str:
        return f"{table.path}: {table.where([place])}"

    image, name = value["image"], value.get("name")
    picture = picture_path(image, table.path.absolute().parent, where)
    if isinstance(picture, str):
        raise DataError(
            f"{where()}: the picture is at the address {picture}, and nothing is fetched here",
            "fetch the pictures and name their files, or let a run of the table fetch them: xclr run",
        )
    called = image if isinstance(image, str) else value.get("path")
    file = called.strip() or None if isinstance(called, str) else None
    return Found(file, row, picture, name if name is None or isinstance(name, int) else str(name))


def _of_named_files(table: Path, found: Iterator[Found]) -> tuple[int, str]:
    """How many rows there are, and the hash of the table's stamp and those of the files that it names."""
    seen, most = hashlib.sha256(stamp_of(table.name, table) or b""), 0
    for each in found:
        most = each.row + 1
        if isinstance(each.picture, Path):
            seen.update(stamp_of(str(each), each.picture) or b"")
    return most, seen.hexdigest()
