"""ImageNet-9: variants as splits, groups by the folders' numbers, and classes that are in no group."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest

from tests.kit.trees import imagenet9
from xclr.errors import DataError
from xclr.evaluation.datasets import READERS, Tree
from xclr.evaluation.datasets.imagenet9 import VARIANTS

READER = READERS["imagenet9"]


def refused(root):
    """The error of a root that cannot be read."""
    for ask in (READER.read, READER.pictures):
        with pytest.raises(DataError) as caught:
            ask(Tree.open(root))
    assert str(root) in caught.value.message
    assert "<variant>/val/" in caught.value.remedy
    assert "MadryLab/backgrounds_challenge" in caught.value.remedy
    return caught.value.message


def test_variants_are_splits_and_folder_numbers_are_targets(tmp_path):
    found = READER.read(Tree.open(imagenet9(tmp_path, classes=10, each=2)))
    rows = found.items.to_pylist()
    assert Counter(each["split"] for each in rows) == dict.fromkeys(VARIANTS, 18)
    for each in rows:
        variant, _, folder, _ = each["name"].split("/")
        assert (each["split"], each["targets"]) == (variant, [int(folder[:2])])
    assert found.classes[2] == ("wheeled vehicle", None)
    assert len(found.classes) == 9


def test_the_mapping_has_every_class_and_keeps_those_without_a_group(tmp_path):
    assert READER.read(Tree.open(imagenet9(tmp_path, classes=4))).mapping == (0, 1, 2, -1)
    scattered = {"10": 1, "2": 0, **{str(label): -1 for label in (0, 1, 3, 4, 5, 6, 7, 8, 9)}}
    (tmp_path / "in_to_in9.json").write_text(json.dumps(scattered))
    mapping = READER.read(Tree.open(tmp_path)).mapping
    assert [label for label, group in enumerate(mapping) if group >= 0] == [2, 10]
    assert (mapping[10], len(mapping)) == (1, 11)


def test_the_variants_may_lie_in_the_archives_folder(tmp_path):
    imagenet9(tmp_path)
    (tmp_path / "bg_challenge").mkdir()
    (tmp_path / "code").mkdir()
    for variant in VARIANTS:
        (tmp_path / variant).rename(tmp_path / "bg_challenge" / variant)
    beside = READER.read(Tree.open(tmp_path))
    (tmp_path / "in_to_in9.json").rename(tmp_path / "bg_challenge" / "in_to_in9.json")
    inside = READER.read(Tree.open(tmp_path))
    assert beside == inside
    assert set(inside.items["split"].to_pylist()) == set(VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_that_is_missing_or_has_fewer_pictures_is_named(tmp_path, variant):
    root = imagenet9(tmp_path)
    next((root / variant).rglob("*.JPEG")).unlink()
    message = refused(root)
    assert "partial" in message
    assert f"{variant} 3" in message
    shutil.rmtree(root / variant)
    assert f"{variant}/val" in refused(root)


def test_other_folders_than_the_published_are_refused(tmp_path):
    root = imagenet9(tmp_path, classes=4)
    (root / "no_fg" / "val" / "02_wheeled vehicle").rename(root / "no_fg" / "val" / "03_reptile")
    assert "other folders than in original: 1 (no_fg)" in refused(root)
    for variant in VARIANTS:
        shutil.rmtree(root / variant / "val" / "01_bird")
    assert "the folders are not 00 to 01" in refused(root)
    (root / "original" / "val" / "00_dog").rename(root / "original" / "val" / "dog")
    assert "folders without a number: 1 (dog)" in refused(root)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is not JSON"),
        ("[0, 1]", "does not map names to int"),
        ('{"0": "1"}', "does not map names to int"),
        ('{"0": true}', "does not map names to int"),
        ('{"0": 0, "2": 1}', "the keys are not 0 to 1"),
        ('{"0": 0, "01": 1}', "the keys are not 0 to 1"),
        ('{"0": 0, "1": 2}', "class 1 is in group 2 of 2"),
        ('{"0": -2, "1": 1}', "class 0 is in group -2 of 2"),
    ],
)
def test_another_mapping_is_refused(tmp_path, content, problem):
    root = imagenet9(tmp_path)
    (root / "in_to_in9.json").write_text(content)
    message = refused(root)
    assert "in_to_in9.json" in message
    assert problem in message
    (root / "in_to_in9.json").unlink()
    assert "in_to_in9.json is missing" in refused(root)
