"""A person's own table of captions and pictures: Parquet, CSV, TSV or JSON lines, in one file or several.

A picture may have several captions: rows that name the same file or address, or a list in the column of captions. Each
becomes a row.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xclr.captions import tablefile
from xclr.captions.layout import SPELLED, by_names, files_at, split_of
from xclr.captions.source import SEVERAL, Record, Records, SourceReader, located
from xclr.captions.tablefile import Table
from xclr.captions.text import CaptionCheck, described, key, label_of, share
from xclr.errors import DataError
from xclr.files import TRAIN, Picture, is_text, is_url, stamp_of
from xclr.recipe import DataConfig

CHECKED = 10_000  # rows, before any work
SHOWN = 3  # missing files named in a message
MOST_SPLITS, LETTERS = 10, 40  # values of a column of splits in a message, and of each

HELD_OUT_PICTURES = 0.10
KEY_BYTES = 16
FOREIGN = re.compile("[a-z0-9+.-]{2,}:/", re.IGNORECASE)  # as addresses begin, once they were taken for paths
ROW_ID = "row_id"  # an optional column that names the rows
FILE_NAME = "file_name"  # what the column of pictures in a metadata file is called, or its name ends in
HOLDS = {
    "caption_column": (("text", "bytes", "texts"), "text, or lists of text"),
    "image_column": (("text", "bytes"), "the pictures' bytes, paths or URLs, or structs of bytes and path"),
}


class Columns(NamedTuple):
    """What the columns of a table are called."""

    caption: str
    image: str
    label: str | None
    id: str | None
    split: str | None


class Part(NamedTuple):
    """A file of a table: opened, with the names of its columns, its folder below data.path, its split if names tell."""

    table: Table
    columns: Columns
    below: str
    split: str | None

    @property
    def names_pictures(self) -> bool:
        """Whether the pictures are given by paths or addresses."""
        return self.table.types[self.columns.image] == "text"

    @property
    def may_have_several(self) -> bool:
        """Whether a row may have a list of captions."""
        return self.table.types[self.columns.caption] == "texts" or self.table.ending in tablefile.JSON_LINES

    def where(self, place: int) -> str:
        """The file and the place in it."""
        return f"{self.table.path}: {self.table.where([place])}"

    def called(self, name: str) -> str:
        """What a file that the table names is called from data.path on."""
        return f"{self.below}/{name}" if self.below and not Path(name).is_absolute() else name

    def picture(self, place: int, value: object) -> Picture:
        """A value of the column of pictures as one; raises DataError for a value that is none."""
        return picture_path(value, self.table.path.absolute().parent, lambda: self.where(place))


def captions(data: DataConfig) -> Records:
    """One record a caption; those that are empty or not UTF-8 are left out and counted as malformed.

    Raises DataError as `check` does, and where more captions of a file are malformed than not.
    """
    parts = check(data)
    texts = [_texts(part) for part in parts]
    yield from _records(data, parts, texts)
    return _malformed(parts, [each.finish() for each in texts])


def _records(data: DataConfig, parts: Sequence[Part], texts: Sequence[CaptionCheck]) -> Iterator[Record]:
    """A record a caption that is of use; the others are told to `texts`, one a file."""
    row = 0
    for number, rows in groupby(streamed(data, parts, lambda part: [*_roles(part).values()]), itemgetter(0)):
        part, kinds = parts[number], LabelKinds(parts[number])
        for _, place, values in rows:
            value = dict(zip(_roles(part), values, strict=True))
            own = _id(part, place, value["id"]) if "id" in value else str(row)
            same = _of_row(part, place, own, value) | {"label": kinds.label(place, value.get("label"))}
            for at, caption in _usable(texts[number], place, value["caption"]):
                name = key("table", own if at == 0 else f"{own}/{at}")
                yield same | {"key": name, "caption": caption, "split": same["split"] or _split(name)}
            row += 1


def _texts(part: Part) -> CaptionCheck:
    return CaptionCheck(str(part.table.path), part.table.where)


def _malformed(parts: Sequence[Part], found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stats of what was left out of all files together."""
    told = [(part.called(part.table.path.name), stats) for part, stats in zip(parts, found, strict=True) if stats]
    if not told or len(parts) == 1:
        return told[0][1] if told else {}
    samples = [f"{name}: {stats['malformed_samples']}" for name, stats in told[:SHOWN]]
    more = ["..."] * (len(told) > SHOWN)
    return {
        "malformed": sum(stats["malformed"] for _, stats in told),
        "malformed_samples": "; ".join([*samples, *more]),
    }


def pictures(data: DataConfig) -> Iterator[Picture]:
    """The pictures in the order of `captions`, streamed: each as often as it has captions that are of use."""
    parts = parts_of(data)
    texts = [_texts(part) for part in parts]
    for number, place, (value, captions) in streamed(
        data, parts, lambda part: [part.columns.image, part.columns.caption]
    ):
        picture = parts[number].picture(place, value)
        for _ in _usable(texts[number], place, captions):
            yield picture


def _usable(check: CaptionCheck, place: int, value: object) -> list[tuple[int, str]]:
    """The captions of a row that are of use, each with its number among all of them."""
    captions = [(number, check.caption(place, each)) for number, each in enumerate(_each(value))]
    return [(number, caption) for number, caption in captions if caption]


def captions_listing(data: DataConfig) -> str | None:
    """What names the captions beside the files' content, hashed: the names of several, and whose captions are whose."""
    parts = parts_of(data)
    return " ".join(filter(None, (_files_listing(parts), _several_listing(data, parts)))) or None


def _files_listing(parts: Sequence[Part]) -> str | None:
    """The names of several files and their splits, hashed."""
    if len(parts) == 1:
        return None
    names = "".join(f"{part.split} {part.called(part.table.path.name)}\n" for part in parts)
    return f"files {hashlib.sha256(os.fsencode(names)).hexdigest()}"


def _several_listing(data: DataConfig, parts: Sequence[Part]) -> str | None:
    """Which captions are of one picture, hashed, where a picture has several: the split goes by pictures then."""
    wanted = [_listed(part) for part in parts]
    found, several, seen = hashlib.sha256(), False, set[int]()
    for at, _, values in streamed(data, parts, _listed) if any(wanted) else ():
        value = dict(zip(wanted[at], values, strict=True))
        number = len(_each(value.get(parts[at].columns.caption)))
        picture = value.get(parts[at].columns.image)
        name = hash((parts[at].below, picture.strip())) if isinstance(picture, str) and picture.strip() else None
        several = several or number > 1 or name in seen
        if name is not None:
            seen.add(name)
        found.update(f"{number} {picture}\n".encode(errors="replace"))
    return f"{SEVERAL}{found.hexdigest()}" if several else None


def _each(value: object) -> Sequence[object]:
    """The captions of a row; none is one that is missing."""
    return (value or (None,)) if isinstance(value, list) else (value,)


def size(data: DataConfig) -> int:
    """How many rows there can be."""
    return sum(tablefile.rows_at_most(part.table) for part in parts_of(data))


def _roles(part: Part) -> dict[str, str]:
    """The columns that captions come from, by what they hold; encoded pictures are left where they are."""
    columns = {role: name for role, name in part.columns._asdict().items() if name is not None and role != "image"}
    image = part.columns.image
    if part.names_pictures:
        return columns | {"image": image}
    return columns | ({"path": f"{image}.path"} if f"{image}.path" in part.table.types else {})


def _listed(part: Part) -> list[str]:
    """The columns that say which captions are of one picture."""
    return ([part.columns.caption] if part.may_have_several else []) + _named(part)


def _named(part: Part) -> list[str]:
    """The column of pictures where it holds names."""
    return [part.columns.image] if part.names_pictures else []


def _of_row(part: Part, place: int, own: str, value: dict[str, Any]) -> Record:
    """What the captions of a row share: picture, its path, id, and the split where it is told."""
    picture, path = part.picture(place, value.get("image")), value.get("path")
    return {
        "id": own if "id" in value else None,
        "path": part.called(value["image"].strip()) if isinstance(picture, Path) else path,
        "url": picture if isinstance(picture, str) else None,
        "picture": key("row", own) if picture is None else key("picture", str(picture)),
        "split": split_of(_spelled(part, place, value["split"])) if "split" in value else part.split,
    }


class LabelKinds:
    """Names of classes, and the first place of each kind of value, so that a mixture is found."""

    def __init__(self, part: Part) -> None:
        self.column, self.table = part.columns.label, part.table
        self.names = self.table.classes.get(self.column or "")
        self.first: dict[str, int] = {}

    def label(self, place: int, value: object) -> str | None:
        """The class's name; raises DataError for a value that cannot be one or is of another kind than the others."""
        if isinstance(value, list | dict):
            raise DataError(
                f"{self.table.path}: the label is {described(value)} ({self.table.where([place])})", "give text or null"
            )
        if self.names is not None and isinstance(value, int):
            return self._class(place, value)
        name = label_of(value if isinstance(value, float) else _text(value, str(self.column), self.table, place))
        if name is None:
            return None
        kind = described(value)
        self.first.setdefault(kind, place)
        if len(self.first) > 1:
            seen = ", ".join(f"{each} ({self.table.where([at])})" for each, at in self.first.items())
            raise DataError(
                f"{self.table.path}: column {self.column!r} mixes types: {seen}", "write all labels in one way"
            )
        return name

    def _class(self, place: int, number: int) -> str | None:
        """The name of a numbered class; -1 is none."""
        assert self.names is not None
        if not -1 <= number < len(self.names):
            raise DataError(
                f"{self.table.path}: the label is {number}, and column {self.column!r} has {len(self.names)} names "
                f"({self.table.where([place])})",
                "give as many names as classes, and null or -1 for none",
            )
        return None if number == -1 else label_of(self.names[number])


def _text(value: object, column: str, table: Table, place: int) -> str | None:
    """The value as text; raises DataError where it is not UTF-8, or holds half a character."""
    text = None if value is None else value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)
    if text is not None and not is_text(text):
        raise DataError(f"{table.path}: column {column!r} is not UTF-8 ({table.where([place])})", "mend that row")
    return text


def _id(part: Part, place: int, value: object) -> str:
    """The name of a row; raises DataError for a value that is none."""
    column = str(part.columns.id)
    found = "" if isinstance(value, list | dict) else _text(value, column, part.table, place) or ""
    if not found:
        raise DataError(
            f"{part.where(place)}: {column} is {value!r}, no name of a row", "give each row a text or number"
        )
    return found


def _split(name: bytes) -> str:
    return "pictures" if share("picture", name.hex()) < HELD_OUT_PICTURES else "train"


def check_rows(data: DataConfig) -> None:
    """Raise DataError as `check` does, and for what the first rows show: captions, pictures and labels of no use."""
    parts = check(data)
    texts = [_texts(part) for part in parts]
    for _ in _records(data.model_copy(update={"limit": min(CHECKED, data.limit or CHECKED)}), parts, texts):
        pass
    if sum(each.kept + each.faults.total() for each in texts) < CHECKED:  # these are all
        for each in texts:
            each.finish()


def check(data: DataConfig) -> list[Part]:
    """The opened files of a table; raises DataError for what is wrong with its columns, its row ids or its splits."""
    parts = parts_of(data)
    if next(streamed(data, parts, lambda part: [part.columns.caption]), None) is None:
        raise DataError(f"{data.path} has no rows", "give a table with captioned pictures")
    _check_unique(data, parts)
    _check_splits(data, parts)
    return parts


def _check_unique(data: DataConfig, parts: Sequence[Part]) -> None:
    column, keys = parts[0].columns.id, bytearray()
    if column is None:
        return
    for at, place, (value,) in streamed(data, parts, lambda part: [column]):
        keys += key("table", _id(parts[at], place, value))
    again = _repeated(keys)
    if len(again):
        at, place, (value,) = next(islice(streamed(data, parts, lambda part: [column]), int(again[0]), None))
        raise DataError(
            f"{parts[at].where(place)}: {len(again)} row ids stand twice, first {value}",
            f"make {column} unique, or " + ("drop the column" if data.id_column is None else "unset data.id_column"),
        )


def _repeated(keys: bytearray) -> npt.NDArray[np.int64]:
    """The rows whose key stood before, ascending."""
    numbers = np.frombuffer(bytes(keys), dtype=np.uint64).reshape(-1, KEY_BYTES // 8)
    order = np.lexsort((numbers[:, 1], numbers[:, 0]))
    same = (numbers[order][1:] == numbers[order][:-1]).all(axis=1)
    return np.sort(order[1:][same])


def _check_splits(data: DataConfig, parts: Sequence[Part]) -> None:
    column, counts = data.split_column, Counter[str]()
    if column is None:
        return
    for at, place, (value,) in streamed(data, parts, lambda part: [column]):
        counts[_spelled(parts[at], place, value)] += 1
        if len(counts) > MOST_SPLITS:
            break
    splits = {split_of(each) for each in counts}
    there = ", ".join(f"{each[:LETTERS]!r} ({rows})" for each, rows in counts.most_common(MOST_SPLITS))
    for fault, is_so in (
        ("has values that are no split", None in splits),
        ("has no training rows", TRAIN not in splits),
        ("holds no rows out", len(splits) == 1),
    ):
        if is_so:
            otherwise = "; or unset data.split_column: a tenth is held out then"
            raise DataError(f"{data.path}: column {column!r} {fault}; it has {there}", f"write {SPELLED}{otherwise}")


def _spelled(part: Part, place: int, value: object) -> str:
    """A value of the column of splits as a word."""
    column = str(part.columns.split)
    names = part.table.classes.get(column, ())
    if isinstance(value, int) and 0 <= value < len(names):
        return str(names[value])
    return _text(value, column, part.table, place) or ""


def parts_of(data: DataConfig) -> list[Part]:
    """The opened files of a table; raises DataError for columns that are not there, of no use, or of several types."""
    path = located(data)
    files = files_at(path)
    files = files if data.split_column is not None else by_names(path, files)
    tables = [tablefile.open_table(each.path, data.encoding, data.separator) for each in files]
    columns = _columns(data, tables[0])
    for other in tables[1:]:
        _check_alike(tables[0], other, columns)
    split = data.split_column is None
    return [Part(table, columns, f.below, f.split if split else None) for table, f in zip(tables, files, strict=True)]


def _columns(data: DataConfig, table: Table) -> Columns:
    """What a table's columns are called; raises DataError for those that are not there or of no use."""
    image = _image_column(data, table)
    for field in ("caption_column", "image_column", "label_column", "id_column", "split_column"):
        column = image if field == "image_column" else getattr(data, field)
        if column is not None and column not in table.types:
            raise DataError(
                f"{table.path} has no column {column!r}",
                f"set data.{field} to one of: " + ", ".join(name for name in table.types if name.strip()),
            )
        may_be, holds = HOLDS.get(field, ((), ""))
        if holds and table.types[column] not in may_be:
            kind = "lists of text" if table.types[column] == "texts" else table.types[column]
            raise DataError(f"{table.path}: column {column!r} holds {kind}", f"it must hold {holds}")
    own = data.id_column or (ROW_ID if ROW_ID in table.types else None)
    return Columns(data.caption_column, image, data.label_column, own, data.split_column)


def _image_column(data: DataConfig, table: Table) -> str:
    """The column of pictures: where none is called as by default, that of file names, as beside Hugging Face's."""
    column = data.image_column
    if column in table.types or column != DataConfig.model_fields["image_column"].default:
        return column
    names = [each for each in table.types if each == FILE_NAME or each.endswith(f"_{FILE_NAME}")]
    return FILE_NAME if FILE_NAME in names else names[0] if len(names) == 1 else column


def _check_alike(first: Table, other: Table, columns: Columns) -> None:
    """Raise DataError when a file of a table has other columns than the first, of those that are read."""
    for column in filter(None, columns):
        one, kind = first.types[column], other.types.get(column)
        if kind != one and not {kind, one} <= {"text", "bytes"}:
            has = "has none" if kind is None else f"holds {kind}"
            raise DataError(
                f"{other.path} {has} in column {column!r}, and {first.path} {one}",
                "write all files of a table with the same columns, or move those away that are of another",
            )


def streamed(
    data: DataConfig, parts: Sequence[Part], wanted: Callable[[Part], Sequence[str]]
) -> Iterator[tuple[int, int, list[Any]]]:
    """The number of the part, the place, and the wanted values of each row, at most data.limit of them.

    Of files whose names tell splits a limit takes as large a share of each split.
    """
    groups = [list(group) for _, group in groupby(enumerate(parts), lambda each: each[1].split)]
    for group, limit in zip(groups, _limits(data.limit, groups), strict=True):
        rows = ((at, place, values) for at, part in group for place, values in tablefile.rows(part.table, wanted(part)))
        yield from islice(rows, limit)


def _limits(limit: int | None, groups: Sequence[Sequence[tuple[int, Part]]]) -> list[int | None]:
    if limit is None or len(groups) == 1:
        return [limit] * len(groups)
    train, held_out = (sum(tablefile.rows_at_most(part.table) for _, part in group) for group in groups)
    held = min(limit - 1, max(1, round(limit * held_out / max(1, train + held_out))))
    return [limit - held, held]


def picture_paths(data: DataConfig, parts: Sequence[Part]) -> Iterator[tuple[Part, int, Picture]]:
    """File, place and picture of each row that names one; raises DataError for a value that is none."""
    for at, place, (value,) in streamed(data, parts, _named):
        yield parts[at], place, parts[at].picture(place, value)


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
    parts = parts_of(data)
    missing: list[tuple[Part, int, Path]] = []
    found, files = hashlib.sha256(), 0
    for part, place, picture in picture_paths(data, parts):
        if isinstance(picture, Path):
            files += 1
            entry = stamp_of(os.path.relpath(picture, part.table.path.absolute().parent), picture)
            if entry is None:
                missing.append((part, place, picture))
            else:
                found.update(entry)
    if missing:
        raise _not_there(missing, files)
    return found.hexdigest() if files else None


def _not_there(missing: Sequence[tuple[Part, int, Path]], files: int) -> DataError:
    table, column = missing[0][0].table, missing[0][0].columns.image
    first = "; ".join(f"{part.table.where([place])}: {path}" for part, place, path in missing[:SHOWN])
    return DataError(
        f"{table.path}: {len(missing)} of {files} picture files are not there ({first}"
        + ("; ...)" if len(missing) > SHOWN else ")"),
        _why_not_there(missing[0][2], table.path.absolute().parent)
        or f"paths in column {column!r} start at {table.path.absolute().parent}; addresses start with http:// or https://",
    )


def _why_not_there(path: Path, folder: Path) -> str:
    """The reason that a path itself gives, as it is written below a folder; empty for none."""
    written = os.path.relpath(path, folder)
    if FOREIGN.match(written):
        return "only http(s) addresses are fetched: copy these files here, and give their paths"
    if "\\" in written:
        return "write / between folders, not a backslash"
    if written.startswith("~"):
        return "~ stands for no folder here: write the path out"
    if any(os.path.exists(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD")):  # noqa: PTH110
        return "files of these names are there, with their accents written in another way: write the names as `ls` does"
    return ""


def files(data: DataConfig) -> tuple[Path, ...]:
    """The files of the table."""
    return tuple(each.path for each in files_at(located(data)))


def tell(data: DataConfig) -> Iterator[str]:
    """Lines that say what was chosen where the recipe did not: the column of pictures, the splits."""
    parts = parts_of(data)
    image = parts[0].columns.image
    if image != data.image_column:
        yield f"no column {data.image_column!r}: the pictures are those of {image!r} (data.image_column)"
    if parts[0].split is not None:
        train = sum(part.split == TRAIN for part in parts)
        yield f"the files' names tell the splits: {train} of training rows, {len(parts) - train} held out"


READER = SourceReader(
    captions,
    size,
    pictures,
    several=True,
    files=files,
    check=check_rows,
    captions_listing=captions_listing,
    pictures_listing=pictures_listing,
    tell=tell,
)
