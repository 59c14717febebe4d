"""MIT-States: a noun and an adjective in every folder's name, but for those that begin with "adj "."""

from __future__ import annotations

import shutil

import pytest

from tests.kit.trees import mit_states
from xclr.errors import DataError
from xclr.evaluation.datasets import READERS, Tree

READER = READERS["mit-states"]


def refused(root):
    """The error of a root that cannot be read."""
    for ask in (READER.read, READER.pictures):
        with pytest.raises(DataError) as caught:
            ask(Tree.open(root))
    assert str(root) in caught.value.message
    assert "images/<adjective> <noun>/*.jpg" in caught.value.remedy
    assert "release_dataset.zip" in caught.value.remedy
    return caught.value.message


def test_nouns_are_classes_and_adjectives_attributes(tmp_path):
    found = READER.read(Tree.open(mit_states(tmp_path, nouns=3, adjectives=2, each=2)))
    rows = {each["name"].split("/")[1]: (each["targets"], each["attribute"]) for each in found.items.to_pylist()}
    assert rows == {
        "ancient bear": ([0], 0),
        "ancient clock": ([1], 0),
        "ancient tomato": ([2], 0),
        "bright bear": ([0], 1),
        "bright clock": ([1], 1),
    }
    assert found.classes == (("bear", None), ("clock", None), ("tomato", None))
    assert found.items.num_rows == 10
    assert set(found.items["split"].to_pylist()) == {"all"}


def test_folders_without_an_adjective_are_skipped_and_nothing_else(tmp_path):
    root = mit_states(tmp_path)
    assert (root / "images" / "adj cat").is_dir()
    for name in ("adjacent cat", "Adj cat"):
        shutil.copytree(root / "images" / "adj cat", root / "images" / name)
    names = READER.pictures(Tree.open(root))
    assert not any(name.startswith("images/adj ") for name in names)
    assert {"images/adjacent cat/0.jpg", "images/Adj cat/0.jpg"} <= set(names)


def test_the_archives_folder_is_found_from_above(tmp_path):
    (tmp_path / "other").mkdir()
    mit_states(tmp_path / "release_dataset")
    assert READER.read(Tree.open(tmp_path)).items["name"][0].as_py() == "release_dataset/images/ancient bear/0.jpg"
    assert READER.read(Tree.open(tmp_path)).classes == READER.read(Tree.open(tmp_path / "release_dataset")).classes


@pytest.mark.parametrize("name", ["ancient_bear", "bear", "ancient ", " bear"])
def test_names_that_are_no_pair_are_refused(tmp_path, name):
    root = mit_states(tmp_path)
    (root / "images" / "ancient bear").rename(root / "images" / name)
    assert f"no adjective, space and noun: 1 ({name})" in refused(root)


def test_missing_and_empty_folders_are_refused(tmp_path):
    root = mit_states(tmp_path)
    shutil.rmtree(root / "images" / "bright clock")
    (root / "images" / "bright clock").mkdir()
    assert "partial: folders without pictures: 1 (bright clock)" in refused(root)
    for path in (root / "images").iterdir():
        if not path.name.startswith("adj "):
            shutil.rmtree(path)
    assert "only folders that begin with 'adj '" in refused(root)
    shutil.rmtree(root / "images" / "adj cat")
    assert "images has no folders" in refused(root)
    (root / "images").rmdir()
    assert "images is missing" in refused(root)
