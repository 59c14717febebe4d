"""Folders and globs of tables: which files they are, and the splits that names tell."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xclr.captions import table
from xclr.captions.layout import by_names, files_at, split_of
from xclr.captions.stages import tell_choices
from xclr.errors import DataError
from xclr.recipe import DataConfig, parse_recipe

BOTH = {"train", "pictures"}


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")


def found(root, path="."):
    """Names and splits of the files at a path below `root`."""
    return [
        (each.path.relative_to(root).as_posix(), each.split) for each in by_names(root / path, files_at(root / path))
    ]


def fault(ask, *args):
    with pytest.raises(DataError) as caught:
        ask(*args)
    assert caught.value.remedy and "\n" not in str(caught.value.message)
    return caught.value


@pytest.mark.parametrize(
    ("word", "split"),
    [
        *((word, "train") for word in ("train", "Train", " TRAIN ", "training")),
        *(
            (word, "pictures")
            for word in ("val", "VALID", "validation", "Test", "testing", "dev", "eval", "evaluation")
        ),
        *((word, None) for word in ("", "restval", "trainval", "pet", "0")),
    ],
)
def test_a_word_is_a_split_in_any_case(word, split):
    assert split_of(word) == split


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"],
         [("train-00000-of-00002.parquet", "train"), ("train-00001-of-00002.parquet", "train"),
          ("test-00000-of-00001.parquet", "pictures")]),
        (["data/validation-00000-of-00001.parquet", "data/train-00000-of-00001.parquet", "README.md"],
         [("data/train-00000-of-00001.parquet", "train"), ("data/validation-00000-of-00001.parquet", "pictures")]),
        (["train/0.parquet", "test/0.parquet"], [("train/0.parquet", "train"), ("test/0.parquet", "pictures")]),
        (["coco_train.csv", "coco_val.csv"], [("coco_train.csv", "train"), ("coco_val.csv", "pictures")]),
        (["train-0.parquet", "train-1.parquet"], [("train-0.parquet", None), ("train-1.parquet", None)]),
        (["1.jsonl.gz", "0.jsonl.gz", ".2.jsonl.gz"], [("0.jsonl.gz", None), ("1.jsonl.gz", None)]),
        (["metadata.csv", "other.csv", "train/a.png"], [("metadata.csv", None)]),
        (["metadata.jsonl", "a.png"], [("metadata.jsonl", None)]),
        (["train/metadata.csv", "test/metadata.csv", "train/a.png", "train/other.csv"],
         [("train/metadata.csv", "train"), ("test/metadata.csv", "pictures")]),
        (["dogs/metadata.csv", "cats/metadata.csv"], [("cats/metadata.csv", None), ("dogs/metadata.csv", None)]),
        (["mine.csv", "pictures/a.png"], [("mine.csv", None)]),
    ],
)  # fmt: skip
def test_a_folder_is_its_tables_training_rows_first(names, expected, tmp_path):
    touch(tmp_path, *names)
    assert found(tmp_path) == expected


def test_a_glob_is_the_files_that_it_matches(tmp_path):
    touch(tmp_path, "a/train-0.parquet", "b/train-1.parquet", "b/test-0.parquet", "b/notes.txt")
    assert found(tmp_path, "*/train-*.parquet") == [("a/train-0.parquet", None), ("b/train-1.parquet", None)]
    assert [split for _, split in found(tmp_path, "**/*.parquet")] == ["train", "train", "pictures"]
    assert [each.below for each in files_at(tmp_path / "*" / "*.parquet")] == ["a", "b", "b"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path):
    touch(tmp_path, "a[1].csv", "a1.csv")
    assert found(tmp_path, "a[1].csv") == [("a[1].csv", None)]


@pytest.mark.parametrize(
    ("names", "path", "parts"),
    [
        (["a.png", "deep/er/a.parquet"], ".", ["holds no table"]),
        (["a/b.parquet"], "*", ["matches no file"]),
        (["a.csv", "b.parquet"], ".", ["several kinds: a.csv, b.parquet"]),
        (["metadata.csv", "metadata.jsonl"], ".", ["several kinds", "metadata.jsonl"]),
        (["train-0.parquet", "test-0.parquet", "extra.parquet"], ".", ["extra.parquet: its name tells no split"]),
        (["test-0.parquet", "val-0.parquet"], ".", ["has no training rows", "test-0.parquet, val-0.parquet"]),
        (["data/test-0.parquet", "data/train-0.parquet"], "data/te*", ["has no training rows", "test-0.parquet"]),
    ],
)
def test_files_of_no_use_are_told(names, path, parts, tmp_path):
    touch(tmp_path, *names)
    error = fault(found, tmp_path, path)
    for part in (*parts, str(tmp_path)):
        assert part in error.message


@pytest.mark.parametrize("path", ["gone.parquet", "gone", "data/train-*.parquet"])
def test_nothing_at_a_path_is_told_before_any_work(path, tmp_path):
    error = fault(table.check, DataConfig(source="table", path=tmp_path / path))
    assert f"no table at {tmp_path / path}" in error.message
    assert "a folder of these, or a glob" in error.remedy


def shards(root, *names, rows=20):
    """Parquet shards with so many rows each; a caption says its file and row."""
    root.mkdir(exist_ok=True)
    for name in names:
        captions = [f"{name} {row}" for row in range(rows)]
        pq.write_table(pa.table({"caption": captions, "image": [b"1"] * rows, "photo": captions}), root / name)
    return DataConfig(source="table", path=root)


def test_rows_of_shards_follow_one_another_with_the_splits_that_names_tell(tmp_path):
    data = shards(tmp_path, "test-0.parquet", "train-0.parquet", "train-1.parquet")
    rows = list(table.captions(data))
    assert [each["caption"].split()[0] for each in rows[::20]] == [
        "train-0.parquet",
        "train-1.parquet",
        "test-0.parquet",
    ]
    assert [each["split"] for each in rows] == ["train"] * 40 + ["pictures"] * 20
    assert len({each["key"] for each in rows}) == len(list(table.pictures(data))) == table.size(data) == 60


@pytest.mark.parametrize(("limit", "held_out"), [(1, 0), (2, 1), (6, 2), (30, 10), (60, 20), (100, 20)])
def test_a_limit_takes_as_large_a_share_of_each_split(limit, held_out, tmp_path):
    data = shards(tmp_path, "test-0.parquet", "train-0.parquet", "train-1.parquet").model_copy(update={"limit": limit})
    splits = [each["split"] for each in table.captions(data)]
    assert len(splits) == min(limit, 60) and splits.count("pictures") == held_out
    assert len(list(table.pictures(data))) == len(splits)


def test_shards_without_splits_are_as_one_table(tmp_path):
    data = shards(tmp_path, "part-0.parquet", "part-1.parquet", rows=200).model_copy(update={"limit": 300})
    splits = [each["split"] for each in table.captions(data)]
    assert len(splits) == 300 and set(splits) == BOTH
    assert list(table.tell(data)) == []


def test_names_and_splits_of_files_are_in_what_names_the_captions(tmp_path):
    data = shards(tmp_path, "train-0.parquet", "train-1.parquet")
    before = table.captions_listing(data)
    (tmp_path / "train-1.parquet").rename(tmp_path / "test-1.parquet")
    assert before != table.captions_listing(data)
    assert list(table.tell(data)) == ["the files' names tell the splits: 1 of training rows, 1 held out"]
    assert table.files(data) == (tmp_path / "train-0.parquet", tmp_path / "test-1.parquet")
    one = data.model_copy(update={"path": tmp_path / "test-1.parquet"})
    assert table.captions_listing(one) is None and list(table.tell(one)) == []


def test_a_split_column_counts_more_than_names(tmp_path):
    shards(tmp_path, "test-0.parquet", "other.parquet")
    for name, split in (("test-0.parquet", "train"), ("other.parquet", "val")):
        whole = pq.read_table(tmp_path / name)
        pq.write_table(whole.append_column("part", pa.array([split] * len(whole))), tmp_path / name)
    data = DataConfig(source="table", path=tmp_path, split_column="part")
    assert {(each["caption"].split()[0], each["split"]) for each in table.captions(data)} == {
        ("test-0.parquet", "train"), ("other.parquet", "pictures"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("column", "values", "part"),
    [("caption", None, "has none in column 'caption'"), ("caption", [1], "holds int64 in column 'caption'"),
     ("image", [[b"1"]], "in column 'image'"), ("photo", [1], "holds int64 in column 'photo'")],
)  # fmt: skip
def test_shards_with_other_columns_are_named_both(column, values, part, tmp_path):
    data = shards(tmp_path, "part-0.parquet", "part-1.parquet", rows=1).model_copy(update={"id_column": "photo"})
    other = pq.read_table(tmp_path / "part-1.parquet").drop_columns(column)
    other = other if values is None else other.append_column(column, pa.array(values))
    pq.write_table(other.append_column("more", pa.array([1])), tmp_path / "part-1.parquet")
    error = fault(table.check, data)
    for each in (part, str(tmp_path / "part-0.parquet"), str(tmp_path / "part-1.parquet")):
        assert each in error.message


def test_a_column_that_nobody_reads_may_differ(tmp_path):
    data = shards(tmp_path, "part-0.parquet", "part-1.parquet", rows=1)
    whole = pq.read_table(tmp_path / "part-1.parquet")
    pq.write_table(whole.append_column("more", pa.array([1])), tmp_path / "part-1.parquet")
    assert len(table.check(data)) == 2


@pytest.fixture
def imagefolder(tmp_path):
    """train and test, each with pictures and a metadata file."""
    for split, name in (("train", "a.png"), ("test", "a.png")):
        touch(tmp_path, f"{split}/{name}")
        (tmp_path / split / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": f"{split} {name}"}))
    return DataConfig(source="table", path=tmp_path, caption_column="text")


def test_metadata_beside_pictures_names_them(imagefolder):
    root = imagefolder.path
    train, test = table.captions(imagefolder)
    assert [(each["caption"], each["split"], each["path"]) for each in (train, test)] == [
        ("train a.png", "train", "train/a.png"), ("test a.png", "pictures", "test/a.png"),
    ]  # fmt: skip
    assert train["picture"] != test["picture"]
    assert list(table.pictures(imagefolder)) == [root / "train" / "a.png", root / "test" / "a.png"]
    assert "several" not in table.captions_listing(imagefolder)
    assert table.pictures_listing(imagefolder)
    assert list(table.tell(imagefolder)) == [
        "no column 'image': the pictures are those of 'file_name' (data.image_column)",
        "the files' names tell the splits: 1 of training rows, 1 held out",
    ]
    (root / "test" / "a.png").unlink()
    assert (
        f"1 of 2 picture files are not there (line 1: {root}/test/a.png)"
        in fault(table.pictures_listing, imagefolder).message
    )


def test_a_run_tells_what_was_chosen_for_its_pictures_and_for_those_to_judge_by(imagefolder, tmp_path):
    data = {"source": "table", "path": str(tmp_path), "caption_column": "text"}
    one = parse_recipe({"name": "m", "data": data}, "m")
    other = parse_recipe({"name": "m", "evaluate": {"data": data}}, "m")
    assert tell_choices(one) == tell_choices(other) == [f"data: {line}" for line in table.tell(imagefolder)]
    assert tell_choices(parse_recipe({"name": "m"}, "m")) == []


@pytest.mark.parametrize(
    ("header", "image"),
    [("file_name,text", "file_name"), ("photo_file_name,text", "photo_file_name"),
     ("a_file_name,file_name,text", "file_name"), ("image,file_name,text", "image"),
     ("a_file_name,b_file_name,text", None), ("file,text", None)],
)  # fmt: skip
def test_the_column_of_file_names_stands_in_for_one_that_is_not_there(header, image, tmp_path):
    (tmp_path / "metadata.csv").write_text(f"{header}\n" + ",".join("a" for _ in header.split(",")))
    data = DataConfig(source="table", path=tmp_path, caption_column="text")
    if image is not None:
        assert table.check(data)[0].columns.image == image
        return
    error = fault(table.check, data)
    assert "no column 'image'" in error.message and header.split(",")[0] in error.remedy


def test_a_column_that_a_recipe_names_has_no_stand_in(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,text\na,b\n")
    data = DataConfig(source="table", path=tmp_path, caption_column="text", image_column="picture")
    assert "no column 'picture'" in fault(table.check, data).message
