"""Class folders: captions from their names, splits that stay."""

from xclr.captions import folder
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
