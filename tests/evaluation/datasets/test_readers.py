"""All readers: a tar is its folder, content is named by what is read, errors explain the layout."""

from __future__ import annotations

import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from tests.kit import trees
from xclr import schema
from xclr.errors import DataError
from xclr.evaluation.datasets import LAYOUTS, MAPPING, READERS, Tree, listing, write
from xclr.recipe import DATASETS

BUILT = {
    "imagenet": lambda root: trees.imagenet(root, classes=8, train=2, val=2),
    "real": lambda root: trees.real(root / "real.json").parent,
    "imagenet9": trees.imagenet9,
    "objectnet": lambda root: trees.objectnet(root, classes=8),
    "mit-states": trees.mit_states,
}
READ_TOO = {
    "imagenet": "LOC_synset_mapping.txt",
    "real": "real.json",
    "imagenet9": "in_to_in9.json",
    "objectnet": "mappings/imagenet_to_label_2012_v2",
    "mit-states": "images/bright bear/1.jpg",
}
every = pytest.mark.parametrize("name", READERS)


@pytest.fixture
def root(name, tmp_path):
    """A data set in a folder."""
    (tmp_path / "data").mkdir()
    return BUILT[name](tmp_path / "data")


def test_every_data_set_of_the_recipes_has_a_reader():
    assert tuple(READERS) == tuple(LAYOUTS) == DATASETS


@every
@pytest.mark.parametrize("above", [".", "any name"])
def test_a_tar_is_its_folder(name, root, above, tmp_path):
    """Names, splits, labels, classes, mapping and contents; a folder above all is part of the names alone."""
    folder, tar = Tree.open(root), Tree.open(trees.packed(root, tmp_path / "data.tar", above))
    one, other = READERS[name].read(folder), READERS[name].read(tar)
    assert (one.classes, one.mapping) == (other.classes, other.mapping)
    assert one.items.drop_columns("name") == other.items.drop_columns("name")
    if above == "." or name == "real":
        assert one.items == other.items
    one_pictures, other_pictures = (READERS[name].pictures(tree) for tree in (folder, tar))
    assert list(map(folder.read, one_pictures)) == list(map(tar.read, other_pictures))


@every
def test_pictures_are_those_of_the_items(name, root):
    tree = Tree.open(root)
    names = READERS[name].read(tree).items["name"].to_pylist()
    assert READERS[name].pictures(tree) == (sorted(names) if name != "real" else [])
    assert all(map(tree.exists, READERS[name].tables(tree)))


@every
def test_files_are_written_and_read_again(name, root, tmp_path):
    found = READERS[name].read(Tree.open(root))
    files = write(found, tmp_path, {"digest": "d"})
    assert set(files) == {"items.parquet", "classes.parquet"} | ({MAPPING} if name == "imagenet9" else set())
    assert schema.read(tmp_path / "items.parquet", schema.ITEMS).equals(found.items)
    classes = schema.read(tmp_path / "classes.parquet", schema.CLASSES).to_pylist()
    assert tuple((each["name"], each["synset"]) for each in classes) == found.classes
    assert pq.read_schema(tmp_path / "items.parquet").metadata[b"about"] == b'{"digest": "d"}'
    if name == "imagenet9":
        assert (tmp_path / MAPPING).read_text() == "[0, 1, -1]"


@every
def test_a_listing_changes_with_what_is_read_and_with_nothing_else(name, root):
    before = listing(name, root)
    assert before == listing(name, root)
    for stray in ("README.md", ".hidden.jpg", "extra/a.jpg"):
        (root / stray).parent.mkdir(exist_ok=True)
        (root / stray).write_bytes(b"1")
    assert listing(name, root) == before
    os.utime(root / READ_TOO[name], ns=(1, 1))
    assert listing(name, root) != before


@every
def test_a_listing_changes_with_a_new_picture_and_with_a_new_tar(name, root, tmp_path):
    if name != "real":
        before, picture = listing(name, root), root / READERS[name].pictures(Tree.open(root))[0]
        picture.write_bytes(picture.read_bytes() + b"more")
        assert listing(name, root) != before
    path = trees.packed(root, tmp_path / "data.tar")
    before = listing(name, path)
    assert before == listing(name, path)
    os.utime(path, ns=(1, 1))
    assert listing(name, path) != before


@every
def test_errors_name_the_path_the_layout_and_where_the_data_are(name, tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError) as caught:
            listing(name, path)
        assert str(path) in caught.value.message
        assert "is missing" in caught.value.message
        assert caught.value.remedy.count(LAYOUTS[name].expected) == 1
        assert caught.value.remedy.count(LAYOUTS[name].obtain) == 1


@pytest.mark.parametrize("name", [name for name in READERS if name != "real"])
def test_names_that_are_not_utf8_are_refused(name, root):
    picture = READERS[name].pictures(Tree.open(root))[0]
    os.close(os.open(os.fsencode(root / picture) + b"\xe9.jpg", os.O_CREAT))
    with pytest.raises(DataError, match="1 file names are not UTF-8") as caught:
        READERS[name].read(Tree.open(root))
    assert str(root) in caught.value.message
    assert LAYOUTS[name].obtain in caught.value.remedy


@every
def test_a_partial_copy_of_a_tar_is_refused(name, root, tmp_path):
    path = trees.packed(root, tmp_path / "data.tar")
    os.truncate(path, path.stat().st_size // 20480 * 10240)
    with pytest.raises(DataError, match=r"data\.tar") as caught:
        listing(name, path)
    assert LAYOUTS[name].obtain in caught.value.remedy


def test_pictures_of_two_classes_can_be_told_apart(tmp_path):
    """What the trees promise to the tests that train on them."""
    tree = Tree.open(trees.imagenet(tmp_path, classes=3, train=4, val=4))
    items = READERS["imagenet"].read(tree).items
    means = [trees.mean_colour(tree.read(name)) for name in items["name"].to_pylist()]
    labels, splits = [each[0] for each in items["targets"].to_pylist()], items["split"].to_pylist()
    centres = {
        label: sum(
            mean for mean, each, split in zip(means, labels, splits, strict=True) if (each, split) == (label, "train")
        )
        / 4
        for label in range(3)
    }
    for mean, label, split in zip(means, labels, splits, strict=True):
        if split == "val":
            assert min(centres, key=lambda each: abs(centres[each] - mean).sum()) == label


def test_the_wing_is_light():
    """It is imported by the command line, which must not wait for torch."""
    code = (
        "import sys, xclr.evaluation.datasets; print(sorted({'torch', 'scipy', 'PIL', 'prefect'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
