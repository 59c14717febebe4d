"""Rows of a person's table, streamed from Parquet, CSV, TSV or JSON lines; faults name the file and the line."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BufferedReader, TextIOWrapper
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from xclr.captions.text import encoding_of, visible
from xclr.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PARQUET, JSON_LINES = ".parquet", (".jsonl", ".ndjson")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}
MOST_LINE = 64 << 20  # bytes, or characters, of a line; 1 MB of .gz may be a line of 1 GB
MOST_TEXT = 16 << 20  # characters of a value; an unclosed quote holds no more
ENDINGS = (PARQUET, *DELIMITERS, *JSON_LINES)
PACKED = ".gz"  # may follow the ending of a text file
PARQUET_ROWS = 256  # in memory at once; rows may hold pictures


T = TypeVar("T", str, bytes)


class Column(NamedTuple):
    """A column of a Parquet file, or a field in one: the names on the way to it, and its type."""

    path: tuple[str, ...]
    kind: pa.DataType


Row = tuple[int, list[Any]]  # its place (a line of the file, or a row of a Parquet file) and the wanted values


@dataclass(frozen=True)
class Table:
    """A table that was opened: its columns, each with "text", "texts" (lists), "bytes", or the name of another type.

    Fields of a column are columns, as image.path is; a struct of bytes and path is bytes, or text where it has none.
    """

    path: Path
    ending: str
    types: Mapping[str, str]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by column: the names that numbers stand for
    encoding: str = "utf-8"
    separator: str = ","

    def where(self, places: Sequence[int]) -> str:
        """Say where rows stand, as a person finds them."""
        first = ", ".join(map(str, places[:5])) + (", ..." if len(places) > 5 else "")
        several = "s" if len(places) > 1 else ""
        return f"row{several} {first}, counted from 0" if self.ending == PARQUET else f"line{several} {first}"


def ending_of(path: Path) -> str | None:
    """The ending of a file that is named as a table, without .gz; None for one that is not."""
    ending = Path(path.name.removesuffix(PACKED)).suffix.lower()
    packed = path.suffix == PACKED
    return ending if ending in ENDINGS and not (packed and ending == PARQUET) else None


class Text(NamedTuple):
    """A table that is text, and how to read it."""

    path: Path
    encoding: str
    separator: str


def open_table(path: Path, encoding: str | None = None, separator: str | None = None) -> Table:
    """Read the names of a table's columns; raises DataError for a file that is no table of a known kind.

    Text is in the encoding that is given, else in that of its byte order mark, else in UTF-8.
    """
    ending = ending_of(path)
    if ending is None:
        raise DataError(
            f"{path}: the ending does not tell what it holds", "name it " + ", ".join(f"*{each}" for each in ENDINGS)
        )
    if ending == PARQUET:
        return _open_parquet(path)
    encoding = encoding or encoding_of(next(raw_lines(path), b"")) or "utf-8"
    text = Text(path, encoding, separator or DELIMITERS.get(ending, ","))
    names = _header(text) if ending in DELIMITERS else _first_keys(text)
    return Table(path, ending, dict.fromkeys(names, "text"), encoding=text.encoding, separator=text.separator)


def rows(table: Table, columns: Sequence[str], limit: int | None = None) -> Iterator[Row]:
    """The values of some columns, row by row, at most `limit` rows; memory does not grow with the table.

    Text comes as str, or as bytes where a Parquet file holds text that is not UTF-8; JSON values come as they are.
    """
    found = (
        _parquet_rows(table.path, columns)
        if table.ending == PARQUET
        else _delimited_rows(table, columns)
        if table.ending in DELIMITERS
        else _json_rows(table, columns)
    )
    return islice(found, limit)


def rows_at_most(table: Table) -> int:
    """How many rows there can be: a Parquet file's number of rows, a text file's number of lines."""
    if table.ending == PARQUET:
        return int(_parquet(table.path).metadata.num_rows)
    return count_lines(table.path)


def count_lines(path: Path) -> int:
    """Lines of a text file, plain or .gz."""
    if path.suffix == PACKED:
        return sum(1 for _ in raw_lines(path))
    with path.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b"")) + 1


@contextmanager
def _bytes(path: Path) -> Iterator[gzip.GzipFile | BufferedReader]:
    """The bytes of a file, plain or .gz; raises DataError when it cannot be unpacked."""
    try:
        with gzip.open(path) if path.suffix == PACKED else path.open("rb") as stream:
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}", "fetch it again, or unpack it to see what is there") from error


def raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a text file, plain or .gz, with their ends; raises DataError when it cannot be unpacked."""
    with _bytes(path) as stream:
        yield from _limited(path, stream.readline)


def _limited(path: Path, readline: Callable[[int], T]) -> Iterator[T]:
    """Lines, none longer than MOST_LINE; raises DataError for one that is."""
    for number, line in enumerate(iter(partial(readline, MOST_LINE + 1), readline(0)), start=1):
        if len(line) > MOST_LINE:
            raise DataError(f"{path}: line {number} is longer than {MOST_LINE:,} bytes", "see whether it is a table")
        yield line


def _lines(source: Table | Text) -> Iterator[str]:
    path, encoding, number = source.path, source.encoding, 0
    try:
        with _bytes(path) as stream, TextIOWrapper(stream, encoding, newline="\n") as text:
            for number, line in enumerate(_limited(path, text.readline), start=1):
                if number == 1 and "\0" in line:
                    order = "utf-16-be" if line.startswith("\0") else "utf-16-le"
                    raise DataError(f"{path} holds NUL characters, as UTF-16 does", f"--set data.encoding={order}")
                yield line.removeprefix("\ufeff") if number == 1 else line
    except UnicodeError as error:
        before = error.object[: error.start].count(b"\n") if isinstance(error, UnicodeDecodeError) else 0
        raise DataError(
            f"{path} is not {encoding.upper().removesuffix('-SIG')} on line {number + 1 + before}",
            "save it as UTF-8, or name its encoding, such as --set data.encoding=cp1252",
        ) from error


def _records(source: Table | Text) -> Iterator[tuple[int, list[str]]]:
    """Every record that is not blank and the line on which it starts."""
    csv.field_size_limit(MOST_TEXT)
    reader = csv.reader(_lines(source), delimiter=source.separator, strict=True)
    start = 1
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _not_csv(source.path, start, str(error)) from error
        if record:
            yield start, record
        start = reader.line_num + 1


def _not_csv(path: Path, line: int, reason: str) -> DataError:
    if "new-line character" in reason:
        return DataError(f"{path}: line {line} has a bare carriage return", "save it with line ends LF or CRLF")
    return DataError(
        f"{path}: the row that starts on line {line} has a quote that is not closed ({reason})",
        'close it; inside a quoted value a quote is written twice: "a ""red"" apple"',
    )


def _header(text: Text) -> list[str]:
    _check_separator(text)
    _, names = next(_records(text), (0, []))
    names = [visible(name).strip() for name in names]
    if not any(names):
        raise DataError(f"{text.path} has no header", "its first line names the columns, such as: caption,image")
    _check_names(text.path, names)
    return names


def _check_names(path: Path, names: Sequence[str]) -> None:
    """Raise DataError for two columns of one name."""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise DataError(f"{path}: the header names {twice[0]!r} twice", "give each column a name of its own")


def _check_separator(text: Text) -> None:
    """Raise DataError for a header that another separator would part, and this one does not."""
    first = next(_lines(text), "")
    others = [each for each in SEPARATORS if each in first]
    if others and text.separator not in first:
        value = others[0] if others[0] == ";" else json.dumps(others[0])
        raise DataError(
            f"{text.path}: its header holds {SEPARATORS[others[0]]}, and no "
            + SEPARATORS.get(text.separator, repr(text.separator)),
            f"--set 'data.separator={value}'",
        )


def _delimited_rows(table: Table, columns: Sequence[str]) -> Iterator[Row]:
    names = list(table.types)
    wanted = [names.index(column) for column in columns]
    records = _records(table)
    next(records)
    for line, record in records:
        if len(record) != len(names):
            raise DataError(
                f"{table.path}: the row on line {line} has {len(record)} values, the header {len(names)}",
                "mend that line; a value that holds the separator stands in double quotes",
            )
        yield line, [record[index] for index in wanted]


def _objects(source: Table | Text) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(_lines(source), start=1):
        if text.isspace():
            continue
        try:
            value = json.loads(text.lstrip("\ufeff"))
        except (ValueError, RecursionError) as error:  # a plain ValueError is a number of too many digits
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise DataError(
                f"{source.path}: line {line} is not JSON: {reason}", "write one JSON object a line"
            ) from error
        if not isinstance(value, dict):
            raise DataError(
                f"{source.path}: line {line} holds no JSON object", 'write one a line: {"caption": "a dog"}'
            )
        yield line, value


def _first_keys(text: Text) -> list[str]:
    _, first = next(_objects(text), (0, {}))
    if not first:
        raise DataError(f"{text.path} has no rows", 'write one JSON object a line: {"caption": "a dog"}')
    return list(first)


def _json_rows(table: Table, columns: Sequence[str]) -> Iterator[Row]:
    for line, value in _objects(table):
        missing = [column for column in columns if column not in value]
        if missing:
            raise DataError(
                f"{table.path}: line {line} has no key {missing[0]!r}; it has " + (", ".join(value) or "none"),
                "give every line the same keys; write null where there is no value",
            )
        yield line, [value[column] for column in columns]


def _parquet(path: Path) -> pq.ParquetFile:
    import pyarrow as pa  # here, as below, because a plan of other tables needs none
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last of columns' names
        raise DataError(f"{path} is not a Parquet file", "convert it, for example with pandas' to_parquet") from error


def _open_parquet(path: Path) -> Table:
    file = _parquet(path)
    _check_names(path, file.schema_arrow.names)
    types = {name: _type(kind) for name, (_, kind) in _columns(file).items()}
    without = {name: "text" for name, kind in types.items() if kind == "bytes" and _has_no_bytes(file, f"{name}.bytes")}
    return Table(path, PARQUET, types | without, _class_names((file.schema_arrow.metadata or {}).get(b"huggingface")))


def _columns(file: pq.ParquetFile) -> dict[str, Column]:
    """The columns and the fields in them, by name."""
    found = [column for each in file.schema_arrow for column in _with_fields(Column((each.name,), each.type))]
    return {".".join(each.path): each for each in found}


def _with_fields(column: Column) -> Iterator[Column]:
    """A column and the fields in it; those in a list are lists."""
    import pyarrow as pa

    yield column
    path, kind = column
    inner = kind.value_type if _is_list(kind) else kind
    if pa.types.is_struct(inner):
        for each in inner:
            yield from _with_fields(Column((*path, each.name), pa.list_(each.type) if _is_list(kind) else each.type))


def _has_no_bytes(file: pq.ParquetFile, leaf: str) -> bool:
    """Whether every value of a column is null, as far as the file itself says."""
    number = next((at for at, each in enumerate(file.schema) if each.path == leaf), None)
    if number is None:
        return False
    groups = [file.metadata.row_group(group).column(number) for group in range(file.metadata.num_row_groups)]
    return all(each.statistics is not None and each.statistics.null_count == each.num_values for each in groups)


def _class_names(metadata: bytes | None) -> dict[str, Sequence[str]]:
    """The classes of columns, as `datasets` writes them into a file; none where it wrote something else."""
    try:
        features = json.loads(metadata or b"{}")["info"]["features"]
        found = {name: each["names"] for name, each in features.items() if each.get("_type") == "ClassLabel"}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    return {name: names for name, names in found.items() if isinstance(names, list)}


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow as pa

    first = 0
    try:
        file = _parquet(path)
        there = _columns(file)
        paths = [there[name].path for name in columns]
        for batch in file.iter_batches(PARQUET_ROWS, columns=_to_read(file, paths)):
            values = [_values(batch.column(first), fields) for first, *fields in paths]
            for place, row in enumerate(zip(*values, strict=True), start=first):
                yield place, list(row)
            first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is damaged: {error}", "write the table again") from error
    except (ValueError, OverflowError, LookupError) as error:  # times that Python has not, zones that nobody knows
        raise DataError(
            f"{path}: a value from row {first} on is none in Python: {error}", "write it as text"
        ) from error


def _to_read(file: pq.ParquetFile, paths: Sequence[Sequence[str]]) -> list[str]:
    """What Parquet calls the columns to read: a field alone where it can be, the whole column where lists are above."""
    there = {prefix for each in file.schema for prefix in accumulate(each.path.split("."), "{}.{}".format)}
    return list(dict.fromkeys(name if (name := ".".join(path)) in there else path[0] for path in paths))


def _values(column: pa.Array[Any], fields: Sequence[str]) -> list[Any]:
    """Python values of a column, or of a field in it; text of which some is not UTF-8 as bytes."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_nested(column.type):
        column.validate(full=True)  # text that is not UTF-8 would be an error without a file's name
        return [_within(each, fields) for each in column.to_pylist()]
    if _type(column.type) != "text":
        return list(column.to_pylist())
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return list(column.cast(pa.large_binary()).to_pylist())
    return list(column.to_pylist())


def _within(value: object, fields: Sequence[str]) -> object:
    """A field of a value, or of each in a list; of a picture that is wanted whole the bytes, or else the path."""
    if isinstance(value, list):
        return [_within(each, fields) for each in value]
    if not isinstance(value, dict):
        return value
    if fields:
        return _within(value[fields[0]], fields[1:])
    if not value.keys() & {"bytes", "path"}:
        return value
    return value.get("path") if value.get("bytes") is None else value["bytes"]


def _type(kind: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _type(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if _is_list(kind) and not pa.types.is_nested(kind.value_type) and _type(kind.value_type) == "text":
        return "texts"
    if pa.types.is_struct(kind):
        return _picture_type({each.name: _type(each.type) for each in kind}) or str(kind)
    return "bytes" if _is_binary(kind) else str(kind)


def _picture_type(fields: Mapping[str, str]) -> str | None:
    """What a struct holds that is a picture: bytes and path, or one of them; None for another."""
    picture = {"bytes": "bytes", "path": "text"}
    kinds = [kind for name, kind in picture.items() if fields.get(name) == kind]
    return kinds[0] if kinds and all(fields.get(name, kind) == kind for name, kind in picture.items()) else None


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    sorts = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(each(kind) for each in sorts)


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    sorts = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(each(kind) for each in (*sorts, pa.types.is_list_view, pa.types.is_large_list_view))
