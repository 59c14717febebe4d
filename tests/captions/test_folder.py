"""Class folders: captions from their names, splits that stay."""

import pytest

from xclr.captions import folder
from xclr.errors import DataError
from xclr.recipe import DataConfig


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")


def records(root, **config):
    return list(folder.captions(DataConfig(source="folder", path=root, **config)))


def test_captions_come_from_the_folders_names(tmp_path):
    touch(tmp_path, "golden_retriever/a.png", "polar-bear/deep/b.jpg")
    first, second = records(tmp_path)
    assert (first["caption"], first["label"]) == ("a photo of a golden retriever", "golden_retriever")
    assert (second["caption"], second["label"]) == ("a photo of a polar bear", "polar-bear")
    assert records(tmp_path, caption_template="{}, drawn")[0]["caption"] == "golden retriever, drawn"


def test_pictures_follow_the_captions(tmp_path):
    touch(tmp_path, *(f"{kind}/{number}.png" for kind in ("b", "a") for number in range(20)))
    for limit in (None, 7):
        data = DataConfig(source="folder", path=tmp_path, limit=limit)
        paths = list(folder.pictures(data))
        assert [path.parent.name for path in paths] == [each["label"] for each in folder.captions(data)]
        assert all(path.is_absolute() and path.is_file() for path in paths)
        assert folder.size(data) == len(paths) == (limit or 40)


def test_a_tenth_is_held_out_by_name_wherever_the_folder_lies(tmp_path):
    for place in ("here", "there"):
        touch(tmp_path / place, *(f"a/{number}.png" for number in range(400)))
    here, there = (records(tmp_path / place) for place in ("here", "there"))
    assert here == there
    held_out = {each["key"] for each in here if each["split"] == "pictures"}
    assert 15 < len(held_out) < 70
    touch(tmp_path / "here", "a/more.png")
    assert {each["key"] for each in records(tmp_path / "here") if each["split"] == "pictures"} >= held_out
    assert len({each["key"] for each in here}) == 400


def test_train_and_val_are_the_splits_and_their_folders_the_classes(tmp_path):
    touch(tmp_path, "train/dogs/a.png", "train/cats/a.png", "val/dogs/b.png")
    found = {(each["label"], each["split"]) for each in records(tmp_path)}
    assert found == {("dogs", "train"), ("cats", "train"), ("dogs", "pictures")}


SPLITS = [
    ("Train", "VAL"),
    ("train", "valid"),
    ("train", "validation", "test"),
    ("TRAIN", "dev", "eval"),
    ("train", "val", "__MACOSX", ".cache", "annotations"),
]


@pytest.mark.parametrize("folders", SPLITS, ids="-".join)
def test_folders_called_as_splits_are_splits_when_they_are_all_there_is(folders, tmp_path):
    shown = [name for name in folders if name[0] not in "_.a"]
    touch(tmp_path, *(f"{part}/{kind}/{part}.png" for part in shown for kind in ("cats", "dogs")))
    touch(tmp_path, *(f"{part}/note.txt" for part in folders if part not in shown))
    found = {(each["label"], each["split"]) for each in records(tmp_path)}
    assert found == {(kind, split) for kind in ("cats", "dogs") for split in ("train", "pictures")}
    held_out = [each for each in records(tmp_path) if each["split"] == "pictures"]
    assert len(held_out) == 2 * (len(shown) - 1)


def test_of_train_alone_the_folders_are_the_classes_and_a_tenth_is_held_out(tmp_path):
    touch(tmp_path, *(f"train/{kind}/{number}.png" for kind in ("cats", "dogs") for number in range(100)))
    found = records(tmp_path)
    assert {each["label"] for each in found} == {"cats", "dogs"}
    assert 5 < sum(each["split"] == "pictures" for each in found) < 40


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, "train/a.png", "car/a.png", "dev/a.png")
    assert {each["label"] for each in records(tmp_path)} == {"train", "car", "dev"}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["train/a.png", "train/b.png"], "train is called as splits are, with no class folders"),
        (["train/a.png", "valid/b.png"], "train, valid are called as splits are, with no class folders"),
        (["Train/cats/a.png", "Test/b.png"], "Test is called as splits are, with no class folders"),
        (["val/cats/a.png", "test/cats/a.png"], "test, val are called as splits are, with no train beside it"),
    ],
)
def test_splits_that_are_none_are_told_with_what_they_should_look_like(names, says, tmp_path):
    touch(tmp_path, *names)
    for ask in (folder.READER.captions_listing, lambda data: list(folder.captions(data))):
        with pytest.raises(DataError, match=says) as caught:
            ask(DataConfig(source="folder", path=tmp_path))
        assert f"{tmp_path}/train/CLASS/*.jpg" in caught.value.remedy


@pytest.mark.parametrize("below", ["", "train/"])
@pytest.mark.parametrize(
    ("name", "text"), [("metadata.csv", "file_name,text\na.png,x\n"), ("metadata.jsonl", '{"file_name": "a.png"}\n')]
)
def test_a_table_of_hugging_faces_is_named_with_the_keys_that_read_it(name, text, below, tmp_path):
    touch(tmp_path, f"{below}a.png")
    (tmp_path / below / name).write_text(text)
    with pytest.raises(DataError, match=name) as caught:
        records(tmp_path)
    keys = ["data.source=table", f"data.path={tmp_path / below / name}", "data.image_column=file_name"]
    assert all(f"--set {key}" in caught.value.remedy for key in keys)


def test_any_other_table_and_what_is_no_table_beside_classes_is_left_alone(tmp_path):
    touch(tmp_path, "cats/a.png", "dogs/a.png")
    for text in ("name,age\nx,1\n", "", "\xe9"):
        (tmp_path / "metadata.csv").write_bytes(text.encode("latin-1"))
        assert len(records(tmp_path)) == 2


def test_junk_of_archives_and_network_disks_is_no_class(tmp_path):
    touch(tmp_path, "cats/a.png", "dogs/a.png")
    before = records(tmp_path)
    touch(tmp_path, "__MACOSX/cats/a.png", "@eaDir/a.png", "cats/@eaDir/a.png/thumb.png", ".b/a.png", "cats/._a.png")
    (tmp_path / "above").symlink_to(tmp_path)  # a link that leads back up
    assert records(tmp_path) == before


def test_a_listing_is_named_anew_only_where_labels_are_others_than_they_were(tmp_path):
    """A digest that stayed would find the captions of two classes, train and valid."""
    touch(tmp_path / "old", "train/cats/a.png", "val/cats/b.png")
    touch(tmp_path / "new", "train/cats/a.png", "valid/cats/b.png")
    touch(tmp_path / "alone", "train/cats/a.png", "train/dogs/a.png")
    listings = {}
    for name in ("old", "new", "alone"):
        data = DataConfig(source="folder", path=tmp_path / name)
        listings[name] = folder.READER.captions_listing(data) == folder.hash_names(folder.listing(data))
    assert listings == {"old": True, "new": False, "alone": False}
