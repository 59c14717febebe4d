"""What pictures a folder, a table and tars hold, and what is told of places that hold none."""

import json
import shutil

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tests.kit.tars import write_samples
from xclr.errors import DataError
from xclr.files import Inside
from xclr.images.listing import list_pictures
from xclr.images.obtain import taken


@pytest.fixture
def folder(tmp_path):
    """Pictures at several depths, and files that are none."""
    for name in ("b.png", "a/c d.JPG", "a/deep/e.webp", "ü.gif", ".hidden.png", ".folder/f.png", "notes.txt"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "pictures"


def content(each):
    return taken(each.picture, 1 << 20).data


def test_a_folder_is_listed_at_any_depth_by_name(folder):
    listing = list_pictures(folder)
    found = list(listing.found())
    assert [str(each) for each in found] == ["a/c d.JPG", "a/deep/e.webp", "b.png", "ü.gif"]
    assert [content(each).decode() for each in found] == [each.file for each in found]
    assert [each.row for each in found] == list(range(listing.most))
    (one,) = list_pictures(str(folder / "b.png")).found()
    assert (one.file, content(one)) == ("b.png", b"b.png")


def test_a_change_of_any_file_is_another_listing_and_a_move_is_none(folder, tmp_path):
    before = list_pictures(folder).stamp
    moved = shutil.move(folder, tmp_path / "moved")
    assert list_pictures(moved).stamp == before
    (moved / "b.png").write_bytes(b"other")
    assert list_pictures(moved).stamp != before


def test_tars_are_listed_without_being_unpacked(tmp_path):
    samples = {"0001": {"jpg": b"first", "txt": b"a dog"}, "a/0002": {"json": b"{}", "PNG": b"second"}}
    for name in ("y.tar", "x.tar"):
        write_samples(tmp_path / name, samples)
    found = list(list_pictures(tmp_path).found())
    assert [each.file for each in found] == [
        f"{tar}/{name}" for tar in ("x.tar", "y.tar") for name in ("0001.jpg", "a/0002.PNG")
    ]
    assert [each.row for each in found] == [0, 1, 2, 3]
    assert all(isinstance(each.picture, Inside) for each in found)
    assert [content(each) for each in found] == [b"first", b"second"] * 2
    assert [each.file for each in list_pictures(tmp_path / "x.tar").found()] == ["0001.jpg", "a/0002.PNG"]


def write(path, columns):
    """A table of that ending."""
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        how = pa.csv.WriteOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
        pa.csv.write_csv(table, path, how)
    return path


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_names_files_from_where_it_lies(folder, ending):
    names = ["b.png", "a/deep/e.webp", "gone.png", " b.png "]
    columns = {"file_name": names, "id": ["p", "q", "r", "s"]}
    listing = list_pictures(write(folder / f"table.{ending}", columns), "file_name", "id")
    found = list(listing.found())
    assert (listing.most, listing.name.name, listing.name.type) == (4, "id", pa.string())
    assert [(each.file, each.row, each.name) for each in found] == [
        (name.strip(), row, own) for row, (name, own) in enumerate(zip(names, columns["id"], strict=True))
    ]
    assert [content(each) for each in found] == [b"b.png", b"a/deep/e.webp", b"", b"b.png"]


def test_a_table_may_hold_the_pictures_themselves_and_number_them(tmp_path):
    columns = {"image": [b"one", None, b"three"], "id": pa.array([7, 2**40, None], pa.int64())}
    listing = list_pictures(write(tmp_path / "own.parquet", columns), id_column="id")
    found = list(listing.found())
    assert [(str(each), each.name, content(each)) for each in found] == [
        ("row 0", 7, b"one"), ("row 1", 2**40, b""), ("row 2", None, b"three"),
    ]  # fmt: skip
    assert listing.name.type == pa.int64()


def test_pictures_as_datasets_writes_them_keep_their_paths(folder):
    rows = [{"bytes": b"one", "path": "1.png"}, {"bytes": b"two", "path": None}, {"bytes": None, "path": "b.png"}]
    listing = list_pictures(write(folder / "shard.parquet", {"image": rows, "n": [1, 2, 3]}), id_column="n")
    found = list(listing.found())
    assert [(each.file, each.name) for each in found] == [("1.png", 1), (None, 2), ("b.png", 3)]
    assert [content(each) for each in found] == [b"one", b"two", b"b.png"]


def test_other_columns_of_a_table_are_another_listing(tmp_path):
    table = write(tmp_path / "two.parquet", {"image": [b"one"], "mask": [b"two"], "id": ["a"]})
    columns = ((), ("mask",), ("image", "id"))
    assert len({list_pictures(table, *each).stamp for each in columns}) == 3


def test_another_picture_that_a_table_names_is_another_listing(folder):
    table = write(folder / "table.csv", {"image": ["b.png", "gone.png"]})
    before = list_pictures(table).stamp
    (folder / "gone.png").write_bytes(b"here")
    assert list_pictures(table).stamp != before


@pytest.mark.parametrize(
    ("place", "options", "told"),
    [
        ("nowhere", (), "is not there"),
        ("empty", (), "holds no pictures"),
        ("texts.tar", (), "none of 1 tars has any"),
        ("both", (), "1 pictures and 1 tars"),
        ("notes.txt", (), "does not tell what it holds"),
        ("https://h/x.tar", (), "is an address"),
        ("s3://bucket/x", (), "is an address"),
        ("named.csv", ("picture",), "no column 'picture'"),
        ("named.csv", ("image", "name"), "no column 'name'"),
        ("named.csv", ("image", "row"), "a column 'row' is made here"),
        ("typed.parquet", ("number",), "holds int64"),
        ("typed.parquet", ("image", "fraction"), "holds double"),
        ("nothing.csv", (), "has no rows"),
        ("remote.csv", (), "at the address https://h/1.png"),
        ("both", ("image",), "is no table"),
        ("squeezed.tar", (), "cannot be read as a tar"),
    ],
)
def test_a_place_of_no_use_is_told_in_one_line_with_a_remedy(tmp_path, place, options, told):
    (tmp_path / "empty").mkdir()
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "a.png").write_bytes(b"x")
    for name in ("both/x.tar", "texts.tar"):
        write_samples(tmp_path / name, {"1": {"txt": b"no picture"}})
    (tmp_path / "notes.txt").write_text("a")
    (tmp_path / "squeezed.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    write(tmp_path / "named.csv", {"image": ["a.png"], "row": ["1"]})
    write(tmp_path / "nothing.csv", {"image": pa.array([], pa.string())})
    write(tmp_path / "remote.csv", {"image": ["https://h/1.png"]})
    write(tmp_path / "typed.parquet", {"image": [b"x"], "number": [1], "fraction": [0.5]})
    with pytest.raises(DataError, match=told) as caught:
        list_pictures(place if "://" in place else tmp_path / place, *options)
    assert "\n" not in caught.value.message and caught.value.remedy
