"""ObjectNet: from folders over labels and names to PyTorch's classes, of which several may be right."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.kit.trees import objectnet
from xclr.errors import DataError
from xclr.evaluation.datasets import BORDER, READERS, Tree

READER = READERS["objectnet"]
LABELS, OVERLAP, IDS, NAMES = (
    "mappings/folder_to_objectnet_label.json",
    "mappings/objectnet_to_imagenet_1k.json",
    "mappings/pytorch_to_imagenet_2012_id.json",
    "mappings/imagenet_to_label_2012_v2",
)


def read(root):
    return READER.read(Tree.open(root))


def by_folder(found):
    """Targets and attributes of each folder."""
    rows = found.items.to_pylist()
    return {each["name"].split("/")[-2]: (each["targets"], each["attribute"]) for each in rows}


def change(root, name, **changes):
    """Set keys of a JSON file, or delete those given as None."""
    content = json.loads((root / name).read_text()) | changes
    (root / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def refused(root):
    """The error of a root that cannot be read."""
    for ask in (READER.read, READER.pictures):
        with pytest.raises(DataError) as caught:
            ask(Tree.open(root))
    assert str(root) in caught.value.message
    assert "images/<folder>/*.png" in caught.value.remedy
    assert "objectnet.dev" in caught.value.remedy
    return caught.value.message


def test_only_folders_that_imagenet_has_too_and_all_classes_that_are_right(tmp_path):
    found = read(objectnet(tmp_path, classes=4, each=3))
    assert by_folder(found) == {"fish": ([0, 1], 0), "thing_2": ([2], 1), "thing_3": ([3], 2)}
    assert found.classes == (("Fish", None), ("Thing 2", None), ("Thing 3", None))
    assert found.items.num_rows == 9
    assert set(found.items["split"].to_pylist()) == {"test"}
    assert found.mapping == ()


def test_lines_are_ids_and_not_classes(tmp_path):
    root = objectnet(tmp_path, classes=3)
    assert (root / NAMES).read_text().splitlines() == ["shark", "goldfish, Carassius auratus", "tench, Tinca tinca"]
    (root / IDS).write_text(json.dumps({"0": 1, "1": 2, "2": 0}))  # class to line
    assert by_folder(read(root)) == {"fish": ([0, 1], 0), "thing_2": ([2], 1)}
    (root / IDS).write_text(json.dumps({"0": 0, "1": 1, "2": 2}))
    assert by_folder(read(root)) == {"fish": ([1, 2], 0), "thing_2": ([0], 1)}


def test_a_name_on_several_lines_counts_with_all_its_classes(tmp_path):
    found = by_folder(read(objectnet(tmp_path, classes=8, each=1)))
    assert found["thing_2"][0] == found["thing_6"][0] == [2, 6]  # both are called shark
    assert found["thing_7"][0] == [7]


def test_several_folders_may_have_one_label(tmp_path):
    root = objectnet(tmp_path)
    shutil.copytree(root / "images" / "fish", root / "images" / "fishes")
    change(root, LABELS, fishes="Fish")
    found = by_folder(read(root))
    assert found["fishes"] == found["fish"] == ([0, 1], 0)


def test_the_archives_folder_is_found_from_above(tmp_path):
    (tmp_path / "other").mkdir()
    objectnet(tmp_path / "objectnet-1.0")
    found = read(tmp_path)
    assert by_folder(found) == by_folder(read(tmp_path / "objectnet-1.0"))
    assert found.items["name"][0].as_py() == "objectnet-1.0/images/fish/0.png"
    assert Tree.open(tmp_path).read("objectnet-1.0/images/fish/0.png")[1:4] == b"PNG"


def test_the_red_border_is_two_pixels_wide(tmp_path):
    root, cut = objectnet(tmp_path), BORDER["objectnet"]
    shown = np.asarray(Image.open(root / "images" / "fish" / "0.png"))
    assert (shown[:cut] == (255, 0, 0)).all()
    assert not (shown[cut:-cut, cut:-cut] == (255, 0, 0)).all(axis=-1).any()


def test_unknown_folders_names_and_lines_are_named(tmp_path):
    root = objectnet(tmp_path)
    (root / "images" / "zebra").mkdir()
    assert "does not know folders of images: 1 (zebra)" in refused(root)
    (root / "images" / "zebra").rmdir()
    change(root, OVERLAP, Banana="banana; plantain")
    assert "imagenet_to_label_2012_v2 lacks names of mappings/objectnet_to_imagenet_1k.json: 2" in refused(root)
    change(root, OVERLAP, Banana=None)
    change(root, IDS, **{"2": None})
    assert "lacks names of mappings/objectnet_to_imagenet_1k.json: 1 (shark)" in refused(root)
    change(root, IDS, **{"2": 1})
    assert "does not give each class an id of its own" in refused(root)


def test_a_label_without_pictures_is_partial(tmp_path):
    root = objectnet(tmp_path)
    shutil.rmtree(root / "images" / "thing_2")
    assert "partial: labels without pictures: 1 (Thing 2)" in refused(root)
    (root / "images" / "thing_2").mkdir()
    assert "partial: labels without pictures: 1 (Thing 2)" in refused(root)


@pytest.mark.parametrize("name", [LABELS, OVERLAP, IDS, NAMES])
def test_every_mapping_must_be_there_and_readable(tmp_path, name):
    root = objectnet(tmp_path)
    (root / name).write_bytes(b"\xff{")
    assert name in refused(root)
    (root / name).unlink()
    assert f"{name} is missing" in refused(root)
    shutil.rmtree(root / "images")
    assert "images is missing" in refused(root)


def test_the_names_may_end_lines_as_windows_does(tmp_path):
    root = objectnet(tmp_path)
    before = by_folder(read(root))
    (root / NAMES).write_bytes((root / NAMES).read_bytes().replace(b"\n", b" \r\n"))
    assert by_folder(read(root)) == before
