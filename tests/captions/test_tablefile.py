"""Tables of every kind: the same rows from each, and faults told by file and line."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xclr.captions.tablefile import PARQUET_ROWS, open_table, rows, rows_at_most
from xclr.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
PAIRS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8)


def delimited(pairs, delimiter, end="\r\n"):
    """The bytes of a table with the columns caption and image, as Python's csv writes it."""
    stream = io.StringIO(newline="")
    quoting = csv.QUOTE_MINIMAL if "\r" in end else csv.QUOTE_ALL  # with LF alone Python leaves CR unquoted
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([("caption", "image"), *pairs])
    return stream.getvalue().encode()


def as_json(pairs):
    return "".join(json.dumps({"caption": a, "image": b}, ensure_ascii=False) + "\n" for a, b in pairs).encode()


def as_parquet(pairs):
    stream = io.BytesIO()
    pq.write_table(pa.table({"caption": [a for a, _ in pairs], "image": [b for _, b in pairs]}), stream)
    return stream.getvalue()


WRITERS = {
    "a.csv": lambda pairs: delimited(pairs, ","),
    "b.csv": lambda pairs: b"\xef\xbb\xbf" + delimited(pairs, ",", "\n"),
    "c.tsv": lambda pairs: delimited(pairs, "\t"),
    "d.jsonl": as_json,
    "e.ndjson": lambda pairs: b"\xef\xbb\xbf" + as_json(pairs),
    "f.parquet": as_parquet,
    "g.csv.gz": lambda pairs: gzip.compress(delimited(pairs, ","), mtime=0),
}


@pytest.fixture
def write(tmp_path):
    """Writes bytes to a file of a name and returns its path."""

    def write(name, content):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return write


def read(path, columns=("caption", "image"), limit=None):
    return [values for _, values in rows(open_table(path), columns, limit)]


def fault(path, columns=("caption", "image")):
    """What is told of a faulty table: always its path, and a remedy."""
    with pytest.raises(DataError) as caught:
        read(path, columns)
    assert str(path) in caught.value.message
    assert caught.value.remedy
    return caught.value


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS)
def test_any_text_comes_back_the_same_from_every_kind_of_table(pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    for name, writer in WRITERS.items():
        (folder / name).write_bytes(writer(pairs))
        table = open_table(folder / name)
        assert list(table.types) == ["caption", "image"]
        assert read(folder / name) == [list(pair) for pair in pairs], name
        assert rows_at_most(table) >= len(pairs)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("limit", [1, PARQUET_ROWS, PARQUET_ROWS + 1, 10_000])
def test_a_limit_takes_the_first_rows(name, limit, write):
    pairs = [(f"row {number}", "x") for number in range(2 * PARQUET_ROWS)]
    assert read(write(name, WRITERS[name](pairs)), limit=limit) == [list(pair) for pair in pairs[:limit]]


@pytest.mark.parametrize("name", WRITERS)
def test_columns_come_in_the_order_asked_for_and_as_often(name, write):
    path = write(name, WRITERS[name]([("a dog", "dog.png")]))
    assert read(path, ["image", "caption", "image"]) == [["dog.png", "a dog", "dog.png"]]


def test_places_are_the_lines_on_which_rows_start(write):
    path = write("a.csv", 'caption,image\n"two\nlines",a\n\n"a ""b"", c",b\n')
    assert list(rows(open_table(path), ["caption"])) == [(2, ["two\nlines"]), (5, ['a "b", c'])]


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.csv", "caption,image\na,b\nc,d,e\n", ["line 3 has 3 values, the header 2"]),
        ("a.tsv", "caption\timage\na\n", ["line 2 has 1 values"]),
        ("a.csv", 'caption,image\na,b\n"never closed,c\nd,e\n', ["starts on line 3", "not closed"]),
        ("a.csv", 'caption,image\n"' + "x" * 200_000, ["starts on line 2", "field limit"]),
        ("a.csv", 'caption,image\n"a"b,c\n', ["starts on line 2"]),
        ("a.csv", "caption,image\ra,b\r", ["line 1", "carriage return"]),
        ("a.csv", b"caption,image\nfine,b\ncaf\xe9,b\n", ["not UTF-8 on line 3"]),
        ("a.csv", "caption,image\na,b\n".encode("utf-16"), ["not UTF-8 on line 1"]),
        ("a.csv", "", ["has no header"]),
        ("a.csv", "\n\n", ["has no header"]),
        ("a.csv", ",\na,b\n", ["has no header"]),
        ("a.csv", "caption,image,caption\na,b,c\n", ["'caption' twice"]),
        ("a.jsonl", '{"caption": "a", "image": "b"}\n{"caption": "a"\n', ["line 2 is not JSON"]),
        ("a.jsonl", '{"caption": "a", "image": "b"}\n\n["a", "b"]\n', ["line 3 holds no JSON object"]),
        ("a.jsonl", '{"caption": "a", "image": "b"}\n{"image": "a"}\n', ["line 2 has no key 'caption'", "image"]),
        ("a.jsonl", '{"caption": "a", "image": "b"}\n{}\n', ["line 2 has no key 'caption'"]),
        ("a.jsonl", b'{"caption": "a", "image": "b"}\n{"caption": "\xff"}\n', ["not UTF-8 on line 2"]),
        ("a.jsonl", "", ["has no rows"]),
        ("a.csv.gz", gzip.compress(b"caption,image\n" + b"a,b\n" * 9000, mtime=0)[:-9], ["damaged"]),
        ("a.csv.gz", "caption,image\na,b\n", ["damaged"]),
        ("a.parquet", "caption,image\na,b\n", ["is not a Parquet file"]),
        ("a.txt", "a dog\n", ["the ending does not tell"]),
        ("a.parquet.gz", b"PAR1", ["the ending does not tell"]),
        ("captions", "a dog\n", ["the ending does not tell"]),
    ],
)
def test_a_faulty_table_is_told_by_line(name, content, parts, write):
    error = fault(write(name, content))
    for part in parts:
        assert part in error.message


def test_an_unknown_ending_is_told_the_known_ones(write):
    assert fault(write("a.xlsx", b"")).remedy == "name it *.parquet, *.csv, *.tsv, *.jsonl, *.ndjson"


def test_a_column_of_row_numbers_without_a_name_does_no_harm(write):
    assert read(write("a.csv", ",caption,image\n0,a dog,b\n")) == [["a dog", "b"]]


def test_types_of_parquet_columns_are_told(write):
    stream = io.BytesIO()
    columns = {"text": ["a"], "bytes": [b"a"], "number": [1], "kind": pa.array(["a"]).dictionary_encode()}
    pq.write_table(pa.table(columns), stream)
    types = open_table(write("a.parquet", stream.getvalue())).types
    assert types == {"text": "text", "bytes": "bytes", "number": "int64", "kind": "text"}
