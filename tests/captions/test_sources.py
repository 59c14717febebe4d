"""What a source needs from outside: found, named, and missed before any work."""

import os

import pytest

from xclr.captions import imagenet, reader_of
from xclr.captions.folder import listing, split_folders
from xclr.captions.source import plain_classes
from xclr.captions.table import parts_of, picture_paths, pictures_listing
from xclr.errors import DataError
from xclr.recipe import DataConfig


def touch(root, *names, content=b"1"):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def table(folder, text, **config):
    (folder / "mine.csv").write_text(text)
    return DataConfig(source="table", path=folder / "mine.csv", **config)


def folder(root, **config):
    return DataConfig(source="folder", path=root, **config)


def fault(function, data):
    with pytest.raises(DataError) as caught:
        function(data)
    assert caught.value.remedy
    return caught.value


def test_values_of_a_table_are_paths_addresses_or_nothing(tmp_path):
    touch(tmp_path, "sub/a b.png")
    data = table(tmp_path, f"caption,image\na,sub/a b.png\nb,HTTPS://host/b.png\nc,\nd,{tmp_path}/sub/a b.png\ne,  \n")
    found = [(place, picture) for _, place, picture in picture_paths(data, parts_of(data))]
    here = tmp_path / "sub" / "a b.png"
    assert found == [(2, here), (3, "HTTPS://host/b.png"), (4, None), (5, here), (6, None)]


def test_missing_picture_files_are_counted_and_the_first_are_named(tmp_path):
    touch(tmp_path, "here.png")
    lines = ["a,here.png", *(f"b,gone{number}.png" for number in range(5)), "c,http://host/c.png"]
    error = fault(pictures_listing, table(tmp_path, "caption,image\n" + "\n".join(lines)))
    assert "5 of 6 picture files are not there" in error.message
    assert f"line 3: {tmp_path}/gone0.png" in error.message
    assert "gone2.png" in error.message
    assert "gone3.png" not in error.message
    assert f"start at {tmp_path}" in error.remedy


def test_a_folder_is_no_picture_file(tmp_path):
    (tmp_path / "sub").mkdir()
    assert "1 of 1" in fault(pictures_listing, table(tmp_path, "caption,image\na,sub\n")).message


def test_the_listing_of_a_table_follows_size_and_time_of_its_pictures(tmp_path):
    touch(tmp_path, "a.png", "b.png")
    data = table(tmp_path, "caption,image\na,a.png\nb,b.png\n")
    first = pictures_listing(data)
    assert pictures_listing(data) == first
    seen = (tmp_path / "b.png").stat()
    os.utime(tmp_path / "b.png", ns=(seen.st_atime_ns, seen.st_mtime_ns + 1000))
    touched = pictures_listing(data)
    touch(tmp_path, "b.png", content=b"22")
    os.utime(tmp_path / "b.png", ns=(seen.st_atime_ns, seen.st_mtime_ns + 1000))
    assert len({first, touched, pictures_listing(data)}) == 3


def test_a_table_of_addresses_has_no_listing(tmp_path):
    assert pictures_listing(table(tmp_path, "caption,image\na,http://host/a.png\n")) is None


def test_a_missing_column_is_told_before_any_work(tmp_path):
    error = fault(parts_of, table(tmp_path, ",text,image\n0,a,b\n"))
    assert "no column 'caption'" in error.message
    assert error.remedy == "set data.caption_column to one of: text, image"


def test_pictures_of_class_folders_are_listed_by_name(tmp_path):
    touch(tmp_path, "dogs/b.PNG", "dogs/deep/a.jpeg", "cats/x.webp", "cats/notes.txt", "cats/.x.png", ".git/y.png")
    touch(tmp_path, "loose.png", "dogs/.cache/z.png")
    assert listing(folder(tmp_path)) == ["cats/x.webp", "dogs/b.PNG", "dogs/deep/a.jpeg"]


def test_links_to_folders_inside_a_class_are_not_followed(tmp_path):
    touch(tmp_path, "dogs/a.png")
    (tmp_path / "dogs" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert listing(folder(tmp_path)) == ["dogs/a.png"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train/dogs/a.png", "val/dogs/b.png"], ["train", "val"]),
        (["train/dogs/a.png", "test/dogs/b.png", "val/dogs/b.png"], ["test", "train", "val"]),
        (["train/dogs/a.png", "val/dogs/b.png", "boats/c.png"], []),
        (["train/a.png", "boats/c.png"], []),
        (["val/dogs/a.png", "boats/c.png"], []),
        (["train/dogs/a.png"], ["train"]),
    ],
)
def test_train_and_val_are_splits_only_when_they_are_all_there_is(names, splits, tmp_path):
    touch(tmp_path, *names)
    assert split_folders(tmp_path) == splits


def test_a_limit_draws_over_all_classes_and_stays_the_same(tmp_path):
    touch(tmp_path, *(f"{kind}/{number}.png" for kind in "abcd" for number in range(50)))
    few = listing(folder(tmp_path, limit=40))
    assert len(few) == 40
    assert few == sorted(few) == listing(folder(tmp_path, limit=40))
    assert {name[0] for name in few} == set("abcd")
    assert set(few) < set(listing(folder(tmp_path, limit=41)))


def test_faults_of_a_folder(tmp_path):
    assert "no folder at" in fault(listing, folder(tmp_path / "absent")).message
    assert "no class folders" in fault(listing, folder(tmp_path)).message
    touch(tmp_path, "dogs/readme.txt")
    assert "hold no pictures" in fault(listing, folder(tmp_path)).message
    touch(tmp_path, os.fsdecode(b"dogs/\xff.png"))
    assert "not UTF-8" in fault(listing, folder(tmp_path)).message


def test_a_touched_picture_changes_the_pictures_listing_but_not_that_of_the_captions(tmp_path):
    touch(tmp_path, "dogs/a.png", "cats/b.png")
    data = folder(tmp_path)
    reader = reader_of("folder")
    before = reader.captions_listing(data), reader.pictures_listing(data)
    touch(tmp_path, "cats/b.png", content=b"22")
    after = reader.captions_listing(data), reader.pictures_listing(data)
    assert before[0] == after[0]
    assert before[1] != after[1]
    touch(tmp_path, "cats/c.png")
    assert reader.captions_listing(data) != before[0]


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("cc3m", ["no cc3m file", "caption TAB url", "Train_GCC-training.tsv"]),
        ("cc12m", ["no cc12m file", "url TAB caption", "cc12m.tsv"]),
        ("imagenet", ["no folder", "LOC_synset_mapping.txt"]),
    ],
)
def test_absent_benchmark_data_are_told_where_to_get_them(source, parts, tmp_path):
    error = fault(reader_of(source).files, DataConfig(source=source, path=tmp_path / "absent"))
    for part in (*parts, str(tmp_path / "absent"), "--set data.path="):
        assert part in str(error)


@pytest.mark.parametrize(("source", "other"), [("cc3m", "cc12m"), ("cc12m", "cc3m")])
def test_columns_in_the_order_of_the_other_set_are_noticed_at_once(source, other, tmp_path):
    lines = {"cc3m": "a dog\thttp://host/a.jpg\n", "cc12m": "http://host/a.jpg\ta dog\n"}
    (tmp_path / "x.tsv").write_text(lines[other])
    error = fault(reader_of(source).check, DataConfig(source=source, path=tmp_path / "x.tsv"))
    assert f"in the order of {other}" in error.message
    (tmp_path / "x.tsv").write_text(lines[source])
    reader_of(source).check(DataConfig(source=source, path=tmp_path / "x.tsv"))


@pytest.mark.parametrize("missing", ["train", "val", "LOC_synset_mapping.txt"])
def test_a_part_of_imagenet_that_is_missing_is_named(missing, tmp_path):
    touch(tmp_path, *(f"{part}/n01440764/a.JPEG" for part in ("train", "val") if part != missing))
    if missing != "LOC_synset_mapping.txt":
        touch(tmp_path, "LOC_synset_mapping.txt")
    data = DataConfig(source="imagenet", path=tmp_path)

    def both(data):
        imagenet.files(data)
        imagenet.listing(data)

    assert f"{tmp_path / missing} is missing" in fault(both, data).message


def test_folders_that_look_alike_are_one_class(tmp_path):
    touch(tmp_path, "cafe\u0301/a.png", "caf\u00e9/b.png", "caf\u00e9\u200b/c.png", "Caf\u00e9/d.png")
    records = list(reader_of("folder").captions(folder(tmp_path)))
    assert {each["label"] for each in records} == {"caf\u00e9", "Caf\u00e9"}
    assert len({each["caption"] for each in records}) == 2 and len({each["key"] for each in records}) == 4


def test_no_two_classes_have_one_name():
    assert plain_classes(DataConfig(), ["hot_dog", "hot dog", "red_cat"]) == [
        ("hot_dog", None), ("hot dog", None), ("red cat", None)
    ]  # fmt: skip
