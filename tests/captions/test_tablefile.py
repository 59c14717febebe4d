"""Tables of every kind: the same rows from each, and faults told by file and line."""

import csv
import gzip
import io
import json
import shlex

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xclr.captions import tablefile
from xclr.captions.tablefile import PARQUET_ROWS, open_table, rows, rows_at_most
from xclr.errors import DataError
from xclr.recipe import Recipe, with_overrides

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
        ("a.csv", 'caption,image\n"' + "x" * 200_000, ["starts on line 2", "not closed"]),
        ("a.csv", 'caption,image\n"a"b,c\n', ["starts on line 2"]),
        ("a.csv", "caption,image\ra,b\r", ["line 1", "carriage return"]),
        ("a.csv", b"caption,image\nfine,b\ncaf\xe9,b\n", ["not UTF-8 on line 3"]),
        ("a.csv", "caption,image\na,b\n".encode("utf-16")[:-1], ["not UTF-16 on line 2"]),
        ("a.csv", "", ["has no header"]),
        ("a.csv", "\n\n", ["has no header"]),
        ("a.csv", ",\na,b\n", ["has no header"]),
        ("a.csv", "caption,image,caption\na,b,c\n", ["'caption' twice"]),
        ("a.jsonl", '{"caption": "a", "image": "b"}\n{"caption": "a"\n', ["line 2 is not JSON"]),
        ("a.jsonl", '{"caption": ' + "[" * 9999, ["line 1 is not JSON"]),
        ("a.jsonl", '{"caption": ' + "9" * 5000 + "}", ["line 1 is not JSON"]),
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


TWICE = pa.table([["a"], ["b"], ["c"]], ["caption", "image", "caption"])
NOWHERE = pa.table({"caption": pa.array([0], pa.timestamp("us", "Mars/Olympus")), "image": ["b"]})
NEVER = pa.table({"caption": pa.array([1 << 50], pa.timestamp("s")), "image": ["b"]})


@pytest.mark.parametrize(
    ("columns", "name", "part"),
    [
        (TWICE, b"image", "'caption' twice"),
        (NOWHERE, b"image", "row 0 on is none"),
        (NEVER, b"image", "row 0 on is none"),
        (pa.table({"caption": ["a"], "image": ["b"]}), b"im\xecge", "is not a Parquet file"),
    ],
)
def test_a_parquet_file_that_python_cannot_hold_is_told_by_name(columns, name, part, write):
    pq.write_table(columns, stream := io.BytesIO())
    assert part in fault(write("a.parquet", stream.getvalue().replace(b"image", name))).message


@pytest.mark.parametrize("name", ["a.csv.gz", "a.tsv.gz", "a.jsonl.gz"])
def test_a_line_without_an_end_is_not_read_to_its_end(name, write, monkeypatch):
    monkeypatch.setattr(tablefile, "MOST_LINE", 1000)
    error = fault(write(name, gzip.compress(b"caption,image\n" * name.startswith("a.c") + b"x" * 100_000)))
    assert "is longer than 1,000 bytes" in error.message


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


MARKED = ("utf-8-sig", "utf-16", "utf-32")


@pytest.mark.parametrize("encoding", [*MARKED, "cp1252", "shift_jis", "gb18030", "utf-16-le", "utf-16-be", "cp500"])
@pytest.mark.parametrize("name", ["a.csv", "b.tsv", "c.jsonl", "d.csv.gz"])
def test_text_in_any_encoding_is_read(encoding, name, write):
    pairs = [
        ("un café" if encoding in {*MARKED, "cp1252", "cp500"} else "犬", f"{number}.png") for number in range(3000)
    ]
    text = as_json(pairs) if ".jsonl" in name else delimited(pairs, "\t" if ".tsv" in name else ",")
    raw = text.decode().encode(encoding)
    path = write(name, gzip.compress(raw) if name.endswith(".gz") else raw)
    table = open_table(path, None if encoding in MARKED else encoding)
    assert list(rows(table, ["caption", "image"])) == list(
        zip(range(1 if ".jsonl" in name else 2, 3002), map(list, pairs), strict=False)
    )


@pytest.mark.parametrize("line", [2, 3, 700, 2999])
def test_the_line_that_is_in_another_encoding_is_named_with_the_remedy(line, write):
    lines = [b"a caption of some length,b.png"] * 3000
    lines[0], lines[line - 1] = b"caption,image", b"caf\xe9,b.png"
    error = fault(write("a.csv", b"\n".join(lines)))
    assert f"a.csv is not UTF-8 on line {line}" in error.message
    assert "--set data.encoding=cp1252" in error.remedy


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize(("name", "text"), [("a.csv", "caption,image\na,b\n"), ("a.jsonl", '{"caption": "a"}\n')])
def test_utf16_without_a_mark_is_told(order, name, text, write):
    error = fault(write(name, text.encode(f"utf-16-{order}")))
    assert error.remedy == f"--set data.encoding=utf-16-{order}"


@pytest.mark.parametrize(
    ("name", "header", "remedy"),
    [
        ("a.csv", "caption;image;kind", "--set 'data.separator=;'"),
        ("a.csv", '"caption";"image"', "--set 'data.separator=;'"),
        ("a.csv", "caption\timage", r"""--set 'data.separator="\t"'"""),
        ("a.csv", "caption|image", """--set 'data.separator="|"'"""),
        ("a.tsv", "caption,image", """--set 'data.separator=","'"""),
    ],
)
def test_another_separator_is_told_by_the_header_and_its_remedy_works(name, header, remedy, write):
    path = write(name, f"{header}\n" + header.replace("caption", "a dog").replace("image", "b.png"))
    error = fault(path)
    assert error.remedy == remedy and "its header holds " in error.message
    (override,) = shlex.split(remedy)[1:]
    separator = with_overrides(Recipe(name="x"), [override]).data.separator
    assert next(rows(open_table(path, None, separator), ["caption", "image"]))[1] == ["a dog", "b.png"]


def test_names_of_columns_are_read_without_what_nobody_sees(write):
    assert read(write("a.csv", "caption\u200b, image\u00a0\na,b\n")) == [["a", "b"]]


def test_a_file_joined_from_several_may_have_marks_between_its_objects(write):
    whole = b"".join(b"\xef\xbb\xbf" + as_json([pair]) for pair in (("a", "b"), ("c", "d")))
    assert read(write("a.jsonl", whole)) == [["a", "b"], ["c", "d"]]


def test_a_value_may_be_long(write):
    assert read(write("a.csv", f"caption,image\n{'x' * 200_000},b\n"))[0][0] == "x" * 200_000
