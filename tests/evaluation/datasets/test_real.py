"""ImageNet-ReaL: list i belongs to the file with number i + 1, and may be empty."""

from __future__ import annotations

import json

import pytest

from tests.kit.trees import WNIDS, imagenet, packed, real
from xclr.errors import DataError
from xclr.evaluation.datasets import READERS, Tree

READER = READERS["real"]


def test_labels_are_found_by_the_numbers_in_the_file_names(tmp_path):
    path = real(tmp_path / "real.json", classes=4, val=5)
    lists = json.loads(path.read_text())
    found = READER.read(Tree.open(path))
    by_name = {each["name"]: each for each in found.items.to_pylist()}
    assert by_name["ILSVRC2012_val_00000001.JPEG"]["targets"] == lists[0]
    assert by_name["ILSVRC2012_val_00000020.JPEG"]["targets"] == lists[19]
    assert "ILSVRC2012_val_00000000.JPEG" not in by_name
    assert {each["split"] for each in by_name.values()} == {"val"}
    assert READER.pictures(Tree.open(path)) == []
    assert (found.classes, found.mapping) == ((), ())


def test_the_labels_are_those_of_the_pictures_in_imagenets_folders(tmp_path):
    pictures = READERS["imagenet"].pictures(Tree.open(imagenet(tmp_path / "imagenet", classes=3, train=1, val=4)))
    found = READER.read(Tree.open(real(tmp_path / "real.json", classes=3, val=4)))
    targets = dict(zip(found.items["name"].to_pylist(), found.items["targets"].to_pylist(), strict=True))
    val = [name.split("/")[1:] for name in pictures if name.startswith("val/")]
    right = [WNIDS.index(wnid) in targets[name] for wnid, name in val]
    assert (sum(right), [targets[name] for (_, name), each in zip(val, right, strict=True) if not each]) == (11, [[]])
    in_folder_order = list(targets.values())
    assert sum(WNIDS.index(wnid) in each for (wnid, _), each in zip(val, in_folder_order, strict=True)) < 8


def test_empty_lists_stay_and_many_classes_count(tmp_path):
    found = READER.read(Tree.open(real(tmp_path / "real.json"))).items["targets"].to_pylist()
    assert (found[1], found[2]) == ([], [2, 0])
    assert len(found) == 9


def test_the_file_its_folder_and_a_tar_of_it_are_one(tmp_path):
    path = real(tmp_path / "data" / "real.json")
    roots = (path, path.parent, packed(path.parent, tmp_path / "a.tar"), packed(path.parent, tmp_path / "b.tar", "top"))
    tables = [READER.read(Tree.open(root)).items for root in roots]
    assert all(each.equals(tables[0]) for each in tables)


def test_the_file_may_have_another_name(tmp_path):
    path = real(tmp_path / "relabelled.json")
    assert READER.read(Tree.open(path)).items.num_rows == 9
    with pytest.raises(DataError, match=r"real\.json is missing"):
        READER.read(Tree.open(tmp_path))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[[0], [1]", "is not JSON"),
        ("", "is not JSON"),
        ('{"0": [0]}', "is no list of lists"),
        ("[]", "is no list of lists"),
        ("[[0], 1]", "entry 1 is no list of whole numbers: 1"),
        ('[["0"]]', "entry 0 is no list of whole numbers: ['0']"),
        ("[[true]]", "entry 0 is no list of whole numbers: [True]"),
        ("[[1.0]]", "entry 0 is no list of whole numbers: [1.0]"),
        ("[[999], [0, 1000]]", "entry 1 has class 1000"),
        ("[[-1]]", "entry 0 has class -1"),
    ],
)
def test_other_content_is_refused(tmp_path, content, problem):
    path = tmp_path / "real.json"
    path.write_text(content)
    for ask in (READER.read, READER.pictures):
        with pytest.raises(DataError) as caught:
            ask(Tree.open(path))
        assert caught.value.message.startswith(str(path))
        assert problem in caught.value.message
        assert "reassessed-imagenet" in caught.value.remedy


def test_the_last_class_is_one(tmp_path):
    (tmp_path / "real.json").write_text("[[999, 0]]")
    assert READER.read(Tree.open(tmp_path)).items["targets"].to_pylist() == [[999, 0]]
