"""A person's own table: what it gives, and what is wrong with it said by name."""

import json
import re

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xclr.artifact import identity
from xclr.captions import table
from xclr.errors import DataError, RecipeError
from xclr.recipe import DataConfig, parse_recipe


@pytest.fixture
def write(tmp_path):
    """Writes columns to a Parquet file and returns the data config that names it."""

    def write(columns, **config):
        path = tmp_path / "mine.parquet"
        pq.write_table(pa.table(columns), path)
        return DataConfig(source="table", path=path, **config)

    return write


def columns(**changes):
    whole = {"caption": ["a dog", "a cat", "a cow"], "image": [b"1", b"2", b"3"], "kind": ["pet", "pet", "farm"]}
    return {name: column for name, column in (whole | changes).items() if column is not None}


def bytes_as_text(*values):
    """A string column with bytes that need not be UTF-8, as other writers leave it."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values).buffers())


def captions(data):
    """All records of a table."""
    return list(table.captions(data))


def fault(data):
    with pytest.raises(DataError) as caught:
        captions(data)
    assert caught.value.remedy
    return caught.value


def test_captions_and_pictures_come_in_the_tables_order(write):
    data = write(columns(caption=[" a  dog", "a\ncat", "a cow"]))
    assert [each["caption"] for each in captions(data)] == ["a dog", "a cat", "a cow"]
    assert [each["label"] for each in captions(data)] == [None, None, None]
    assert list(table.pictures(data)) == [b"1", b"2", b"3"]


def test_columns_may_have_other_names(write):
    data = write(
        {"text": ["a dog"], "jpg": [b"1"], "class": [7]},
        caption_column="text", image_column="jpg", label_column="class",
    )  # fmt: skip
    (record,) = captions(data)
    assert (record["caption"], record["label"]) == ("a dog", "7")
    assert list(table.pictures(data)) == [b"1"]


def test_labels_are_numbered_by_name_and_may_be_missing(write):
    kinds = ["pet", None, "farm"]
    labels = [each["label"] for each in captions(write(columns(kind=kinds), label_column="kind"))]
    assert labels == ["pet", None, "farm"]


def test_the_caption_may_be_the_label(write):
    records = captions(write(columns(), label_column="caption"))
    assert [each["label"] for each in records] == ["a dog", "a cat", "a cow"]


def test_keys_are_distinct_and_follow_row_ids(write):
    plain = captions(write(columns()))
    assert len({each["key"] for each in plain}) == 3
    named = captions(write(columns(row_id=["x", "y", "z"])))
    turned = captions(write(columns(row_id=["z", "y", "x"])))
    assert [each["key"] for each in turned] == [each["key"] for each in named][::-1]


def test_a_rows_split_follows_its_row_id_not_its_place(write):
    names = [f"row{number}" for number in range(400)]
    many = {"caption": ["a dog"] * 400, "image": [b"1"] * 400}
    splits = [each["split"] for each in captions(write(many | {"row_id": names}))]
    assert [each["split"] for each in captions(write(many | {"row_id": names[::-1]}))] == splits[::-1]
    assert set(splits) == {"train", "pictures"}
    assert 20 < splits.count("pictures") < 60


def test_repeated_row_ids_are_named(write):
    error = fault(write(columns(row_id=[5, 7, 7])))
    assert "1 row ids stand twice, first 7" in error.message
    assert "row_id" in error.remedy


def test_a_row_id_beyond_the_limit_may_repeat(write):
    assert len(captions(write(columns(row_id=[5, 7, 7]), limit=2))) == 2


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_limit_takes_the_first_rows(limit, write):
    data = write(columns(), limit=limit)
    assert [each["caption"] for each in captions(data)] == ["a dog", "a cat", "a cow"][:limit]
    assert list(table.pictures(data)) == [b"1", b"2", b"3"][:limit]


@pytest.mark.parametrize("limit", [None, 1, 255, 256, 257, 600])
def test_pictures_are_streamed_over_many_batches(limit, write):
    images = [str(number).encode() for number in range(600)]
    data = write({"caption": ["a dog"] * 600, "image": images}, limit=limit)
    assert list(table.pictures(data)) == images[:limit]


def test_pictures_may_be_missing(write):
    assert list(table.pictures(write(columns(image=pa.array([None, b"2", None], pa.binary()))))) == [None, b"2", None]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_captions_may_be_any_sort_of_text(kind, write):
    texts = pa.array(["a dog", "un café", "a cow"]).cast(kind)
    assert [each["caption"] for each in captions(write(columns(caption=texts)))][1] == "un café"


def test_captions_may_be_categories(write):
    texts = pa.array(["a dog", "a dog", "a cow"]).dictionary_encode()
    assert [each["caption"] for each in captions(write(columns(caption=texts)))][1] == "a dog"


def test_pictures_may_be_large_binary(write):
    data = write(columns(image=pa.array([b"1", b"2", b"3"], pa.large_binary())))
    assert len(captions(data)) == 3
    assert list(table.pictures(data)) == [b"1", b"2", b"3"]


def test_captions_that_are_not_utf8_are_named_by_row(write):
    error = fault(write(columns(caption=bytes_as_text(b"a dog", b"caf\xe9", b"\xff"))))
    assert "2 of 3 captions are of no use (not UTF-8: rows 1, 2, counted from 0)" in error.message


def test_categories_that_are_not_utf8_are_refused(write):
    texts = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), bytes_as_text(b"a dog", b"caf\xe9"))
    assert "Invalid UTF8" in fault(write(columns(caption=texts))).message


@pytest.mark.parametrize("column", ["kind", "row_id"])
def test_labels_and_row_ids_that_are_not_utf8_are_refused(column, write):
    data = write(columns(**{column: bytes_as_text(b"a", b"caf\xe9", b"b")}), label_column="kind")
    error = fault(data)
    assert column in error.message
    assert "UTF-8" in error.message


@pytest.mark.parametrize("empty", ["", "  \n", None, "\u200b", "\x00"])
def test_rows_without_a_caption_of_use_are_left_out_with_their_pictures(empty, write):
    data = write(columns(caption=["a dog", empty, "a cow"]))
    records = table.captions(data)
    kept, stats = [], {}
    while not stats:
        try:
            kept.append(next(records))
        except StopIteration as end:
            stats = end.value
    assert stats == {"malformed": 1, "malformed_samples": "empty: row 1, counted from 0"}
    whole = captions(write(columns()))
    assert [each["key"] for each in kept] == [whole[0]["key"], whole[2]["key"]], "keys are of the rows' numbers"
    assert list(table.pictures(write(columns(caption=["a dog", empty, "a cow"])))) == [b"1", b"3"]


def test_a_table_without_rows_is_named(write):
    data = write({"caption": pa.array([], pa.string()), "image": pa.array([], pa.binary())})
    assert "mine.parquet has no rows" in fault(data).message


@pytest.mark.parametrize(
    ("config", "column", "key"),
    [
        ({"caption_column": "text"}, "text", "data.caption_column"),
        ({"image_column": "jpg"}, "jpg", "data.image_column"),
        ({"label_column": "class"}, "class", "data.label_column"),
    ],
)
def test_a_missing_column_is_named_with_those_there_are(config, column, key, write):
    error = fault(write(columns(), **config))
    assert f"no column '{column}'" in error.message
    assert f"set {key} to one of: caption, image, kind" in error.remedy


@pytest.mark.parametrize("images", [[1, 2, 3], [[1], [2], [3]]])
def test_pictures_of_another_type_are_named_with_it(images, write):
    error = fault(write(columns(image=images)))
    assert f"column 'image' holds {str(pa.array(images).type).partition('<')[0]}" in error.message
    assert "bytes" in error.remedy


def test_a_missing_file_is_named(tmp_path):
    assert "absent.parquet" in fault(DataConfig(source="table", path=tmp_path / "absent.parquet")).message


@pytest.mark.parametrize("content", [b"", b"caption,image\na dog,1\n", b"PAR1" + bytes(100)])
def test_a_file_that_is_not_parquet_is_named(content, tmp_path):
    path = tmp_path / "mine.parquet"
    path.write_bytes(content)
    assert "mine.parquet is not a Parquet file" in fault(DataConfig(source="table", path=path)).message


@pytest.mark.parametrize("part", ["footer", "pages"])
def test_a_parquet_file_with_broken_bytes_is_named(part, write):
    data = write(columns())
    raw = data.path.read_bytes()
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    first, last = {"footer": (footer, len(raw) - 8), "pages": (4, footer)}[part]
    data.path.write_bytes(raw[:first] + b"\xff" * (last - first) + raw[last:])
    assert "mine.parquet" in fault(data).message


def text_table(tmp_path, name, text, **config):
    (tmp_path / name).write_text(text)
    return DataConfig(source="table", path=tmp_path / name, **config)


def test_a_csv_gives_captions_labels_and_addresses(tmp_path):
    text = '\ufeffcaption,image,kind\r\n"a ""red"" dog, running",dog.png,pet\r\na cow,http://host/cow.jpg,\r\n'
    data = text_table(tmp_path, "mine.csv", text, label_column="kind")
    first, second = captions(data)
    assert (first["caption"], first["label"], first["url"]) == ('a "red" dog, running', "pet", None)
    assert (second["caption"], second["label"], second["url"]) == ("a cow", None, "http://host/cow.jpg")
    assert list(table.pictures(data)) == [tmp_path / "dog.png", "http://host/cow.jpg"]


def test_the_same_rows_have_the_same_keys_in_every_kind_of_table(tmp_path, write):
    rows = {"caption": ["a dog", "a cat"], "image": ["a.png", "b.png"]}
    of_csv = captions(text_table(tmp_path, "mine.csv", "caption,image\na dog,a.png\na cat,b.png\n"))
    assert captions(write(rows)) == of_csv


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("7", "the caption is a number (7), not text"),
        ("[1]", "the caption is a number (1), not text"),
        ("{}", "an object"),
        ("[[]]", "a list"),
    ],
)
def test_captions_of_json_that_are_of_no_use_are_named_by_line(value, part, tmp_path):
    text = '{"caption": "a dog", "image": "a.png"}\n\n{"caption": ' + value + ', "image": "b.png"}\n'
    error = fault(text_table(tmp_path, "mine.jsonl", text))
    assert part in error.message
    assert "line 3" in error.message


def test_labels_of_mixed_types_are_named_with_the_first_line_of_each(tmp_path):
    lines = ["1", "2", '"dog"', "3"]
    text = "".join(f'{{"caption": "a", "image": "a.png", "kind": {each}}}\n' for each in lines)
    error = fault(text_table(tmp_path, "mine.jsonl", text, label_column="kind"))
    assert "column 'kind' mixes types: a number (line 1), text (line 3)" in error.message


def test_labels_may_be_whole_and_other_numbers_and_null(tmp_path):
    text = "".join(f'{{"caption": "a", "image": "a.png", "kind": {each}}}\n' for each in ("1", "2.5", "null"))
    records = captions(text_table(tmp_path, "mine.jsonl", text, label_column="kind"))
    assert [each["label"] for each in records] == ["1", "2.5", None]


@pytest.mark.parametrize("value", ["7", "[1]", "{}", "true", r'"http://host/\ud800"'])
def test_a_picture_that_is_no_text_is_named_by_line(value, tmp_path):
    error = fault(text_table(tmp_path, "mine.jsonl", f'{{"caption": "a", "image": {value}}}'))
    assert "line 1: the picture is" in error.message


def test_a_label_that_is_a_list_is_named_by_line(tmp_path):
    data = text_table(tmp_path, "a.jsonl", '{"caption": "a", "image": "a.png", "kind": [1]}', label_column="kind")
    assert "the label is a list (line 1)" in fault(data).message


def test_a_csv_with_a_header_only_has_no_rows(tmp_path):
    assert "mine.csv has no rows" in fault(text_table(tmp_path, "mine.csv", "caption,image\n")).message


def test_captions_that_are_numbers_in_parquet_are_named_with_their_type(write):
    error = fault(write(columns(caption=[1, 2, 3])))
    assert "column 'caption' holds int64" in error.message
    assert "text" in error.remedy


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_classes_of_one_name_are_one_and_captions_of_one_text_alike(ending, tmp_path):
    labels = ["café", "cafe\u0301", "\u00a0café ", "\u200fcafé", "Café", ""]
    texts = ["a dog", "a\u00a0dog", "\u202aa dog\u202c", "a \x00dog", "a\u200b dog", "a dog\ufeff"]
    pictures = [f"{number}.png" for number in range(6)]
    data = DataConfig(source="table", path=tmp_path / f"mine.{ending}", label_column="kind")
    frame = pandas.DataFrame({"caption": texts, "image": pictures, "kind": labels})
    if ending == "parquet":
        frame.to_parquet(data.path)
    elif ending == "jsonl":
        frame.to_json(data.path, orient="records", lines=True)
    else:
        frame.to_csv(data.path, sep="\t" if ending == "tsv" else ",", index=False, encoding="utf-8-sig")
    records = captions(data)
    assert {each["caption"] for each in records} == {"a dog"}
    assert [each["label"] for each in records] == ["café"] * 4 + ["Café", None]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_whole_numbers_beside_missing_ones_are_whole(ending, tmp_path):
    frame = pandas.DataFrame({"caption": ["a", "b", "c"], "image": ["1", "2", "3"], "kind": [1, 2, None]})
    path = tmp_path / f"mine.{ending}"
    if ending == "parquet":
        frame.to_parquet(path)
    elif ending == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, sep="\t" if ending == "tsv" else ",", index=False)
    assert b"1.0" in path.read_bytes() or ending == "parquet"
    records = captions(DataConfig(source="table", path=path, label_column="kind"))
    assert [each["label"] for each in records] == ["1", "2", None]


def test_a_file_of_json_may_write_nan(tmp_path):
    text = "".join(f'{{"caption": "a", "image": "a.png", "kind": {each}}}\n' for each in ("1.0", "2", "NaN"))
    records = captions(text_table(tmp_path, "mine.jsonl", text, label_column="kind"))
    assert [each["label"] for each in records] == ["1", "2", None]


@pytest.mark.parametrize("column", ["kind", "row_id"])
def test_halves_of_characters_in_labels_and_row_ids_are_named_by_line(column, tmp_path):
    rows = [{"caption": "a", "image": "a.png", "kind": "x", "row_id": str(number)} for number in range(3)]
    rows[1][column] = "\ud83d"
    text = "\n".join(map(json.dumps, rows))
    error = fault(text_table(tmp_path, "mine.jsonl", text, label_column="kind"))
    assert f"column {column!r} is not UTF-8 (line 2)" in error.message


def test_halves_of_characters_in_captions_are_left_out(tmp_path):
    rows = [{"caption": text, "image": "a.png"} for text in ("a dog", "a \ud83d cat", "a cow")]
    data = text_table(tmp_path, "mine.jsonl", "\n".join(map(json.dumps, rows)))
    assert [each["caption"] for each in captions(data)] == ["a dog", "a cow"]
    assert len(list(table.pictures(data))) == 2


def test_a_table_of_excel_is_read_with_its_separator_and_encoding(tmp_path):
    (tmp_path / "mine.csv").write_bytes('caption;image;kind\r\n"ein Hündchen; braun";a.png;Tür\r\n'.encode("cp1252"))
    data = DataConfig(source="table", path=tmp_path / "mine.csv", separator=";", encoding="cp1252", label_column="kind")
    (record,) = captions(data)
    assert (record["caption"], record["label"]) == ("ein Hündchen; braun", "Tür")


@pytest.mark.parametrize(
    ("key", "value"), [("separator", ";;"), ("separator", ""), ("separator", '"'), ("separator", "\n"),
                       ("encoding", "cp12522"), ("encoding", "base64"), ("encoding", "undefined"), ("encoding", "\0")]
)  # fmt: skip
def test_separators_and_encodings_that_there_are_not_are_told_with_the_recipe(key, value):
    with pytest.raises(RecipeError, match=f"data.{key}"):
        parse_recipe({"name": "x", "data": {key: value}}, "x")


def test_separator_and_encoding_are_in_no_name_of_an_output_that_was_there_before():
    assert {"separator", "encoding"} & set(identity(DataConfig())) == set()


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("s3://bucket/a.png", r"only http\(s\) addresses"),
        ("file:///tmp/a.png", r"only http\(s\) addresses"),
        ("pictures\\a.png", "not a backslash"),
        ("~/a.png", "stands for no folder"),
        ("cafe\u0301.png", "accents written in another way"),
        ("b.png", "start at"),
    ],
)
def test_a_path_that_is_not_there_is_told_why(path, why, tmp_path):
    (tmp_path / "caf\u00e9.png").touch()
    (tmp_path / "t.csv").write_text(f"caption,image\na dog,{path}\n")
    with pytest.raises(DataError, match="1 of 1 picture files are not there") as caught:
        table.pictures_listing(DataConfig(source="table", path=tmp_path / "t.csv"))
    assert re.search(why, caught.value.remedy)
