"""ImageNet: labels by sorted folders, names that are told apart, and what is partial."""

from __future__ import annotations

import shutil
import tarfile

import pytest

from tests.kit.trees import NAMES, WNIDS, imagenet, tarred
from xclr.captions.imagenet import classes as caption_classes
from xclr.errors import DataError
from xclr.evaluation.datasets import READERS, Tree
from xclr.recipe import DataConfig
from xclr.synsets import distinct

READER = READERS["imagenet"]


def read(root):
    return READER.read(Tree.open(root))


def refused(root):
    """The error that both ways to read a root end in."""
    messages = []
    for ask in (READER.read, READER.pictures):
        with pytest.raises(DataError) as caught:
            ask(Tree.open(root))
        assert str(root) in caught.value.message
        assert "train/<wnid>/*.JPEG" in caught.value.remedy
        assert "image-net.org" in caught.value.remedy
        messages.append(caught.value.message)
    assert messages[0] == messages[1]
    return messages[0]


def test_labels_are_the_places_of_the_sorted_folders(tmp_path):
    found = read(imagenet(tmp_path, classes=4, train=2, val=2))
    rows = found.items.to_pylist()
    assert [each["row_id"] for each in rows] == list(range(16))
    assert [each["name"] for each in rows] == sorted(each["name"] for each in rows)
    for each in rows:
        split, wnid, _ = each["name"].split("/")
        assert (each["split"], each["targets"], each["attribute"]) == (split, [WNIDS.index(wnid)], None)
    assert [synset for _, synset in found.classes] == list(WNIDS[:4])
    assert found.mapping == ()


def test_names_are_those_of_the_captions_and_all_differ(tmp_path):
    root = imagenet(tmp_path, classes=10, train=1, val=1)
    found = read(root).classes
    captions = caption_classes(DataConfig(source="imagenet", path=root), WNIDS)
    assert found == tuple((each.name, each.synset) for each in captions)
    assert len({name for name, _ in found}) == 10
    assert ("crane bird", "n02012849") in found
    assert ("construction crane", "n03126707") in found


def test_without_the_list_synsets_have_the_names_of_wordnet_which_are_small(tmp_path):
    root = imagenet(tmp_path, classes=10, train=1, val=1)
    with_list = read(root).classes
    (root / "LOC_synset_mapping.txt").unlink()
    assert read(root).classes == tuple((name.lower(), synset) for name, synset in with_list)


def test_folders_that_are_no_synsets_are_called_what_they_are_called(tmp_path):
    root = imagenet(tmp_path, classes=3, train=1, val=1)
    (root / "LOC_synset_mapping.txt").unlink()
    for part in ("train", "val"):
        (root / part / WNIDS[2]).rename(root / part / "big_dog")
    shutil.copytree(root / "train" / "big_dog", root / "train" / "big dog")
    found = read(root).classes
    assert found == (
        ("big dog (big dog)", None),
        ("big dog (big_dog)", None),
        ("n01440764", "n01440764"),
        ("n01443537", "n01443537"),
    )


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"a": ["crane"], "b": ["tench"]}, ["crane", "tench"]),
        ({"a": ["Cardigan", "corgi"], "b": ["cardigan"]}, ["Cardigan, corgi", "cardigan"]),
        ({"a": ["Cardigan"], "b": ["cardigan"]}, ["Cardigan (a)", "cardigan (b)"]),
        ({"a": ["crane", "bird"], "b": ["crane"]}, ["crane, bird", "crane"]),
        ({"a": ["crane", "x"], "b": ["crane", "y"]}, ["crane, x", "crane, y"]),
        ({"a": ["crane", "x", "z"], "b": ["crane", "x"]}, ["crane, z", "crane, x"]),
        ({"a": ["crane"], "b": ["crane"]}, ["crane (a)", "crane (b)"]),
        ({"a": ["crane", "x"], "b": ["crane"], "c": ["crane, x"]}, ["crane, x (a)", "crane", "crane, x (c)"]),
    ],
)
def test_no_two_classes_have_one_name(given, names):
    assert list(distinct(given).values()) == names


def test_two_classes_alike_in_the_list_get_their_second_names(tmp_path):
    root = imagenet(tmp_path, classes=3, train=1, val=1)
    lines = ["n01440764 stick, rod", "n01443537 stick, joystick", "", "n02012849 crane"]
    (root / "LOC_synset_mapping.txt").write_text("\n".join(lines))
    assert [name for name, _ in read(root).classes] == ["stick, rod", "stick, joystick", "crane bird"]


def test_a_folder_above_all_is_found(tmp_path):
    imagenet(tmp_path / "ILSVRC", classes=2, train=1, val=1)
    found = read(tmp_path)
    assert [each.as_py() for each in found.items["split"]] == ["train", "train", "val", "val"]
    assert [each.as_py() for each in found.items["targets"]] == [[0], [1], [0], [1]]
    assert found.classes[0] == ("tench", "n01440764")


def test_class_folders_may_be_links(tmp_path):
    root = imagenet(tmp_path / "all", classes=4, train=2, val=1)
    for part in ("train", "val"):
        (tmp_path / "few" / part).mkdir(parents=True)
        for wnid in WNIDS[1:3]:
            (tmp_path / "few" / part / wnid).symlink_to(root / part / wnid)
    assert read(tmp_path / "few").items.num_rows == 6


def test_hidden_and_other_files_are_no_pictures(tmp_path):
    root = imagenet(tmp_path, classes=2, train=1, val=1)
    before = READER.pictures(Tree.open(root))
    for name in ("train/.ipynb_checkpoints/a.JPEG", f"train/{WNIDS[0]}/._a.JPEG", f"train/{WNIDS[0]}/a.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"1")
    assert READER.pictures(Tree.open(root)) == before
    for name in ("b.jpg", "c.PNG", "d.WebP", "e.bmp", "f.jpeg"):
        (root / "val" / WNIDS[1] / name).write_bytes(b"1")
    assert len(READER.pictures(Tree.open(root))) == len(before) + 5


@pytest.mark.parametrize("part", ["train", "val"])
def test_partial_data_are_refused(tmp_path, part):
    root = imagenet(tmp_path, classes=3, train=1, val=1)
    shutil.rmtree(root / part / WNIDS[1])
    (root / part / WNIDS[1]).mkdir()
    message = refused(root)
    assert "partial" in message
    assert WNIDS[1] in message
    shutil.rmtree(root / part)
    assert f"{part} is missing" in refused(root)
    (root / part).mkdir()
    assert f"{part} has no folders" in refused(root)


def test_a_class_of_val_alone_is_refused(tmp_path):
    root = imagenet(tmp_path, classes=3, train=1, val=1)
    shutil.rmtree(root / "train" / WNIDS[0])
    assert f"classes that train lacks: 1 ({WNIDS[0]})" in refused(root)


def test_a_validation_set_that_lies_flat_says_to_sort_it(tmp_path):
    root = imagenet(tmp_path, classes=2, train=1, val=1)
    for path in list((root / "val").rglob("*.JPEG")):
        path.rename(root / "val" / path.name)
        path.parent.rmdir()
    assert "val has no folders" in refused(root)


@pytest.mark.parametrize("held_out", [1999, 50_000])
@pytest.mark.slow
def test_the_thousand_classes_need_all_validation_pictures(tmp_path, held_out):
    names = [f"train/n{label:08d}/1.JPEG" for label in range(1000)]
    names += [f"val/n{index % 1000:08d}/ILSVRC2012_val_{index + 1:08d}.JPEG" for index in range(held_out)]
    path = tarred(tmp_path / "imagenet.tar", [(tarfile.TarInfo(name), b"") for name in names])
    if held_out == 50_000:
        assert READER.pictures(Tree.open(path)) == sorted(names)
    else:
        message = refused(path)
        assert "partial" in message
        assert "1,999 of 50,000" in message


def test_a_list_that_names_not_all_folders_or_cannot_be_read(tmp_path):
    root = imagenet(tmp_path, classes=3, train=1, val=1)
    path = root / "LOC_synset_mapping.txt"
    path.write_text("n01440764 tench\n")
    assert "does not name class folders: 2 (n01443537, n02012849)" in refused(root)
    path.write_text("n01440764\n")
    assert "line 1 has no name" in refused(root)
    path.write_bytes(b"n01440764 t\xe9nch\n")
    assert "LOC_synset_mapping.txt is not UTF-8" in refused(root)


def test_the_list_may_have_more_names_than_there_are_folders(tmp_path):
    root = imagenet(tmp_path, classes=2, train=1, val=1)
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} {names}\n" for wnid, names in NAMES.items()))
    assert [name for name, _ in read(root).classes] == ["tench", "goldfish"]
