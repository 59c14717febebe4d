"""Parquet as Hugging Face's `datasets` writes it: pictures as structs, names of classes, lists, splits, ids."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.kit.stages import no_progress
from xclr import schema
from xclr.captions import run, table
from xclr.captions.shared import NAMES, names_of
from xclr.captions.stages import CAPTIONS, CaptionsConfig, captions
from xclr.captions.tablefile import open_table, rows
from xclr.errors import DataError
from xclr.recipe import DataConfig, parse_recipe
from xclr.stage import Stage
from xclr.store import Store

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
STRUCTS = [{"bytes": b"1", "path": "a.jpg"}, {"bytes": b"2", "path": None}, {"bytes": b"3", "path": "c.jpg"}]
NAMED = {"info": {"features": {
    "image": {"_type": "Image"},
    "captions": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"},
    "label": {"names": ["farm_animal", "pet"], "_type": "ClassLabel"},
    "split": {"names": ["train", "validation"], "_type": "ClassLabel"},
}}}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """Writes columns to a Parquet file with what `datasets` says of them, and returns the data config that names it."""

    def write(columns, said=NAMED, **config):
        whole = {"caption": ["a dog", "a cat", "a cow"], "image": pa.array(STRUCTS, PICTURE)} | columns
        made = pa.table({name: column for name, column in whole.items() if column is not None})
        about = said if isinstance(said, bytes) else json.dumps(said).encode()
        pq.write_table(made.replace_schema_metadata({b"huggingface": about}), tmp_path / "mine.parquet")
        return DataConfig(source="table", path=tmp_path / "mine.parquet", **config)

    return write


def records(data):
    return list(table.captions(data))


def fault(data):
    with pytest.raises(DataError) as caught:
        table.check(data)
    assert caught.value.remedy and "\n" not in str(caught.value.message)
    return caught.value


def collected(data, out):
    out.mkdir()
    produced = run(Stage(CAPTIONS, "captions", CaptionsConfig(data=data, sha256=())), out, no_progress)
    return produced, schema.read(out / "captions.parquet", schema.CAPTIONS)


def test_pictures_are_the_bytes_of_structs_and_their_paths_are_kept(write):
    data = write({})
    assert list(table.pictures(data)) == [b"1", b"2", b"3"]
    assert [each["path"] for each in records(data)] == ["a.jpg", None, "c.jpg"]
    assert table.pictures_listing(data) is None


def test_pictures_are_the_files_where_no_struct_has_bytes(write, tmp_path):
    data = write({"image": pa.array([{"bytes": None, "path": each} for each in ("a.jpg", "b.jpg", None)], PICTURE)})
    assert list(table.pictures(data)) == [tmp_path / "a.jpg", tmp_path / "b.jpg", None]
    assert [each["path"] for each in records(data)] == ["a.jpg", "b.jpg", None]
    with pytest.raises(DataError, match="2 of 2 picture files are not there"):
        table.pictures_listing(data)


def test_a_struct_without_bytes_among_others_is_its_path(write, tmp_path):
    data = write({"image": pa.array([STRUCTS[0], {"bytes": None, "path": "b.jpg"}, None], PICTURE)})
    assert list(table.pictures(data)) == [b"1", tmp_path / "b.jpg", None]


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())]), {"bytes": b"1", "path": "a"}, b"1"),
        (pa.struct([("bytes", pa.binary())]), {"bytes": b"1"}, b"1"),
        (pa.struct([("path", pa.string()), ("bytes", pa.binary()), ("width", pa.int32())]), {"bytes": b"1"}, b"1"),
    ],
)
def test_structs_of_bytes_are_pictures_whatever_else_they_hold(kind, value, shown, write):
    assert list(table.pictures(write({"image": pa.array([value] * 3, kind)}))) == [shown] * 3


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([("data", pa.binary())]),
        pa.struct([("bytes", pa.string())]),
        pa.list_(pa.field("element", PICTURE)),
        pa.int64(),
    ],
)
def test_pictures_of_another_type_are_told_with_the_types_that_are_read(kind, write):
    error = fault(write({"image": pa.nulls(3, kind)}))
    assert f"column 'image' holds {kind}" in error.message
    assert "bytes, paths or URLs, or structs of bytes and path" in error.remedy


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_(pa.string(), 2)])
def test_captions_may_be_lists_of_every_sort(kind, write):
    data = write(
        {"captions": pa.array([["a dog", "a pet"], ["a cat", "x"], ["a cow", "y"]], kind)}, caption_column="captions"
    )
    found = records(data)
    assert [each["caption"] for each in found] == ["a dog", "a pet", "a cat", "x", "a cow", "y"]
    assert len({each["key"] for each in found}) == 6 and len({each["picture"] for each in found}) == 3
    assert list(table.pictures(data)) == [b"1", b"1", b"2", b"2", b"3", b"3"]


@pytest.mark.parametrize(
    "values",
    [
        [{"raw": ["a dog", "a pet"], "id": 1}, {"raw": ["a cat"], "id": 2}, {"raw": ["a cow"], "id": 3}],
        [[{"raw": "a dog"}, {"raw": "a pet"}], [{"raw": "a cat"}], [{"raw": "a cow"}]],
    ],
    ids=["struct of lists", "list of structs"],
)
def test_captions_may_be_lists_within_structs(values, write):
    data = write({"sentences": values}, caption_column="sentences.raw")
    assert [each["caption"] for each in records(data)] == ["a dog", "a pet", "a cat", "a cow"]


def test_fields_are_columns_and_a_column_with_a_dot_is_itself(tmp_path):
    columns = {"a": [{"b": {"c": "deep"}}, None], "a.b": ["plain", "text"], "n": [{"c": 1}, {"c": None}]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    opened = open_table(tmp_path / "a.parquet")
    assert {name: opened.types[name] for name in ("a.b", "a.b.c", "n.c")} == {
        "a.b": "text",
        "a.b.c": "text",
        "n.c": "int64",
    }
    assert [values for _, values in rows(opened, ["a.b", "a.b.c", "n.c"])] == [
        ["plain", "deep", 1],
        ["text", None, None],
    ]


def test_text_in_lists_that_is_not_utf8_is_told_with_the_file(write):
    texts = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"caf\xe9", b"b"]).buffers())
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), texts)
    with pytest.raises(DataError, match=r"mine.parquet.*Invalid UTF8"):
        records(write({"caption": lists}))


def test_numbers_become_the_names_of_their_classes(write, tmp_path):
    data = write({"label": [1, 0, 1]}, label_column="label")
    assert [each["label"] for each in records(data)] == ["pet", "farm_animal", "pet"]
    produced, found = collected(data, tmp_path / "out")
    assert found["label"].to_pylist() == [1, 0, 1] and "classes.parquet" in produced.files
    names = schema.read(tmp_path / "out" / "classes.parquet", schema.CLASSES)["name"].to_pylist()
    assert names == ["farm animal", "pet"]


def test_a_class_of_minus_one_or_null_is_none_and_one_beyond_the_names_is_told(write):
    assert [each["label"] for each in records(write({"label": [1, -1, None]}, label_column="label"))] == [
        "pet",
        None,
        None,
    ]
    with pytest.raises(DataError, match=r"the label is 2, and column 'label' has 2 names \(row 1, counted from 0\)"):
        records(write({"label": [1, 2, 0]}, label_column="label"))


@pytest.mark.parametrize(
    "said", [b"", b"{", b"[]", {}, {"info": {"features": []}}, {"info": {"features": {"label": 1}}}]
)
def test_numbers_stay_where_nothing_is_said_of_them(said, write):
    data = write({"label": [1, 0, 1]}, said=said, label_column="label")
    assert [each["label"] for each in records(data)] == ["1", "0", "1"]


@pytest.mark.parametrize("values", [["train", "Validation", "TEST"], [b"train", b"dev", b"eval"], [0, 1, 1]])
def test_a_column_tells_the_splits(values, write):
    data = write({"split": values}, split_column="split")
    assert [each["split"] for each in records(data)] == ["train", "pictures", "pictures"]


@pytest.mark.parametrize(
    ("values", "said", "there"),
    [
        (["train", "val", "restval"], "values that are no split", ["'restval' (1)", "'train' (1)"]),
        (["train", "val", None], "values that are no split", ["'' (1)"]),
        (["test", "val", "test"], "has no training rows", ["'test' (2)", "'val' (1)"]),
        (["train", "train", "train"], "holds no rows out", ["'train' (3)"]),
        ([5, 6, 7], "values that are no split", ["'5' (1)"]),
    ],
)
def test_splits_that_are_not_there_are_told_with_the_values_that_are(values, said, there, write):
    error = fault(write({"split": values}, split_column="split"))
    assert f"column 'split' {said}" in error.message or said in error.message
    assert all(each in error.message for each in there)
    assert "train for what is learned from" in error.remedy


def test_a_column_of_many_values_is_no_column_of_splits(write):
    error = fault(write({"image": [b"1"] * 400, "caption": [f"{n} " * 90 for n in range(400)]}, split_column="caption"))
    assert len(error.message) < 1000


def test_ids_name_the_rows_and_are_kept(write, tmp_path):
    keys = [each["key"] for each in records(write({"photo": [70, 80, 90], "row_id": ["x"] * 3}, id_column="photo"))]
    assert [each["key"] for each in records(write({"photo": [90, 80, 70]}, id_column="photo"))] == keys[::-1]
    data = write({"photo": [70, 80, 90], "caption": [["a", "b"], ["c"], ["d"]]}, id_column="photo")
    produced, _ = collected(data, tmp_path / "out")
    assert NAMES in produced.files
    assert names_of(tmp_path / "out").to_pylist() == [
        {"row_id": 0, "id": "70", "path": "a.jpg"}, {"row_id": 1, "id": "70", "path": "a.jpg"},
        {"row_id": 2, "id": "80", "path": None}, {"row_id": 3, "id": "90", "path": "c.jpg"},
    ]  # fmt: skip


def test_there_are_no_names_where_rows_have_none(write, tmp_path):
    produced, _ = collected(write({"image": ["http://host/a.jpg", None, "http://host/c.jpg"]}), tmp_path / "out")
    assert NAMES not in produced.files and names_of(tmp_path / "out") is None


@pytest.mark.parametrize(
    ("values", "said", "remedy"),
    [
        (["a", "b", "a"], "row 2, counted from 0: 1 row ids stand twice, first a", "make photo unique"),
        (["a", None, "c"], "row 1, counted from 0: photo is None", "text or number"),
        ([["a"], ["b"], ["c"]], "row 0, counted from 0: photo is ['a']", "text or number"),
    ],
)
def test_ids_of_no_use_are_told_when_a_run_is_planned(values, said, remedy, write, tmp_path):
    data = write({"photo": values}, id_column="photo")
    recipe = parse_recipe({"name": "m", "data": {"source": "table", "path": str(data.path), "id_column": "photo"}}, "m")
    with pytest.raises(DataError) as caught:
        captions(recipe, Store(tmp_path / "home"))
    assert said in caught.value.message and remedy in caught.value.remedy


def test_columns_that_nobody_names_leave_the_digest_as_it_was(write, tmp_path):
    def stage(**keys):
        data = {"source": "table", "path": str(write({"photo": [1, 2, 3]}).path)} | keys
        return captions(parse_recipe({"name": "m", "data": data}, "m"), Store(tmp_path / "home"))

    assert not {"id_column", "split_column"} & stage().identity["data"].keys()
    assert stage().digest != stage(id_column="photo").digest
