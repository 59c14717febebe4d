"""ImageNet: labels by published numbers, names that are told apart, and what is partial."""

from __future__ import annotations

import hashlib
import shutil
import tarfile

import pytest

from tests.kit.trees import NAMES, WNIDS, as_kaggle, imagenet, packed, tarred
from xclr.captions.imagenet import classes as caption_classes
from xclr.errors import DataError
from xclr.evaluation.datasets import READERS, Tree
from xclr.evaluation.datasets.readers import listing
from xclr.graph.wordnet import imagenet_synsets
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


def test_labels_are_the_places_among_the_thousand(tmp_path):
    found = read(imagenet(tmp_path, classes=4, train=2, val=2))
    rows = found.items.to_pylist()
    assert [each["row_id"] for each in rows] == list(range(16))
    assert [each["name"] for each in rows] == sorted(each["name"] for each in rows)
    for each in rows:
        split, wnid, _ = each["name"].split("/")
        assert (each["split"], each["targets"], each["attribute"]) == (split, [WNIDS.index(wnid)], None)
    assert [synset for _, synset in found.classes] == list(WNIDS[:4])
    assert (found.labels, found.mapping) == ((0, 1, 2, 3), ())
    for part in ("train", "val"):
        shutil.rmtree(tmp_path / part / WNIDS[1])
        (tmp_path / part / WNIDS[2]).rename(tmp_path / part / "n15075141")  # the last
    (tmp_path / "LOC_synset_mapping.txt").unlink()
    some = read(tmp_path)
    assert some.labels == (0, 3, 999) and some.classes[2] == ("toilet tissue", "n15075141")
    assert {row["targets"][0] for row in some.items.to_pylist() if "n15075141" in row["name"]} == {999}
    assert {row["targets"][0] for row in some.items.to_pylist()} == {0, 3, 999}


def test_a_part_is_named_by_its_numbers_too_and_the_whole_as_ever(tmp_path):
    root = imagenet(tmp_path, classes=3, train=1, val=1)
    dense = listing("imagenet", root)
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{each} it\n" for each in ("n00000001", *WNIDS[:3])))
    tree = Tree.open(root)
    assert read(root).labels == (0, 1, 2)  # of the 1,000, whatever else the list has
    content = hashlib.sha256()
    for each in (*READER.pictures(tree), *READER.tables(tree)):
        content.update(tree.entry(each))
    assert listing("imagenet", root) == content.hexdigest() != dense
    for part in ("train", "val"):
        shutil.rmtree(root / part / WNIDS[0])
    tree, content = Tree.open(root), hashlib.sha256()
    for each in (*READER.pictures(tree), *READER.tables(tree)):
        content.update(tree.entry(each))
    assert read(root).labels == (1, 2) and listing("imagenet", root) != content.hexdigest()


def test_classes_that_are_others_are_numbered_by_their_list(tmp_path):
    root = imagenet(tmp_path, classes=2, train=1, val=1)
    for part in ("train", "val"):
        for wnid, name in zip(WNIDS, ("big_dog", "cat"), strict=False):
            (root / part / wnid).rename(root / part / name)
    (root / "LOC_synset_mapping.txt").write_text("ant small ant, ant\ncat cat\nbig_dog big dog, dog\n")
    found = read(root)
    assert found.classes == (("big dog", None), ("cat", None)) and found.labels == (1, 2)


def test_names_are_those_of_the_captions_and_all_differ(tmp_path):
    root = imagenet(tmp_path, classes=10, train=1, val=1)
    found = read(root).classes
    captions = caption_classes(DataConfig(source="imagenet", path=root), WNIDS)
    assert [each for each in found if each[0] != "shark (n01484850)" and each[0] != "shark (n01498041)"] == [
        (each.name, each.synset) for each in captions if each.name != "shark"
    ]
    assert len({name for name, _ in found}) == 10
    cranes = {"n02012849": ("crane bird", 134), "n03126707": ("construction crane", 517)}
    for wnid, crane in zip(WNIDS, cranes, strict=False):
        for part in ("train", "val"):
            (root / part / wnid).rename(root / part / crane)
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{each} crane\n" for each in [*cranes, *WNIDS]))
    some = read(root)
    named = {synset: (name, label) for (name, synset), label in zip(some.classes, some.labels, strict=True)}
    assert {each: named[each] for each in cranes} == cranes


def test_without_the_list_synsets_have_the_names_of_wordnet_which_are_small(tmp_path):
    root = imagenet(tmp_path, classes=10, train=1, val=1)
    (root / "LOC_synset_mapping.txt").unlink()
    names = [name for name, _ in read(root).classes]
    assert names[:3] == ["tench", "goldfish", "great white shark"] and names[6:9] == ["stingray", "cock", "hen"]
    assert [name.lower() for name in names] == names


def test_folders_that_are_no_classes_are_refused_with_the_near_names(tmp_path):
    root = imagenet(tmp_path, classes=3, train=1, val=1)
    (root / "LOC_synset_mapping.txt").unlink()
    for part in ("train", "val"):
        (root / part / WNIDS[0]).rename(root / part / "n01440765")
        (root / part / WNIDS[2]).rename(root / part / "Great_White_Shark")
    message = refused(root)
    assert (
        "none of ImageNet's 1,000 classes: 2 (Great_White_Shark (did you mean n01484850, great white shark?)" in message
    )
    assert "n01440765 (did you mean n01440764, tench?)" in message
    (root / "LOC_synset_mapping.txt").write_text("n01440764 tench\nn01443537 goldfish\nsharks shark\n")
    assert "LOC_synset_mapping.txt does not name: 2 (Great_White_Shark, n01440765 (did you mean" in refused(root)


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
    lines = ["n01440764 stick, rod", "n01443537 stick, joystick", "", "n01484850 crane"]
    (root / "LOC_synset_mapping.txt").write_text("\n".join(lines))
    assert [name for name, _ in read(root).classes] == ["stick, rod", "stick, joystick", "crane"]


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
    assert "val has no folders of classes, and no LOC_val_solution.csv" in refused(root)


@pytest.mark.parametrize("at", ["", "ILSVRC", "ILSVRC/Data", "ILSVRC/Data/CLS-LOC", "a tar"])
def test_kaggles_folders_are_read_as_sorted_ones_wherever_one_points(tmp_path, at):
    before = read(imagenet(tmp_path / "sorted", classes=3, train=2, val=2))
    kaggle = as_kaggle(imagenet(tmp_path / "kaggle", classes=3, train=2, val=2))
    root = packed(kaggle, tmp_path / "k.tar") if at == "a tar" else kaggle / at
    found, mine, theirs = read(root), Tree.open(root), Tree.open(tmp_path / "sorted")
    assert (found.classes, found.labels) == (before.classes, before.labels)
    assert found.items.drop_columns("name") == before.items.drop_columns("name")
    names = zip(found.items["name"].to_pylist(), before.items["name"].to_pylist(), strict=True)
    assert all(mine.read(one) == theirs.read(other) for one, other in names)
    listed = listing("imagenet", root)
    solution = kaggle / "LOC_val_solution.csv"
    if at != "a tar":
        solution.write_text(solution.read_text() + "\n")
        assert listing("imagenet", root) != listed


@pytest.mark.parametrize("held_out", [1999, 50_000])
@pytest.mark.slow
def test_the_thousand_classes_need_all_validation_pictures(tmp_path, held_out):
    synsets = imagenet_synsets()
    names = [f"train/{each}/1.JPEG" for each in synsets]
    names += [f"val/{synsets[index % 1000]}/ILSVRC2012_val_{index + 1:08d}.JPEG" for index in range(held_out)]
    path = tarred(tmp_path / "imagenet.tar", [(tarfile.TarInfo(name), b"") for name in names])
    if held_out == 50_000:
        assert READER.pictures(Tree.open(path)) == sorted(names)
    else:
        message = refused(path)
        assert "partial" in message
        assert "1,999 of 50,000" in message


def test_a_list_that_names_not_all_folders_and_one_that_cannot_be_read(tmp_path):
    root = imagenet(tmp_path, classes=3, train=1, val=1)
    path = root / "LOC_synset_mapping.txt"
    path.write_text("n01440764 tench\n")
    assert [name for name, _ in read(root).classes] == ["tench", "goldfish", "great white shark"]  # WordNet's
    path.write_text("n01440764\n")
    assert "line 1 has no name" in refused(root)
    path.write_bytes(b"n01440764 t\xe9nch\n")
    assert "LOC_synset_mapping.txt is not UTF-8" in refused(root)


def test_the_list_may_have_more_names_than_there_are_folders(tmp_path):
    root = imagenet(tmp_path, classes=2, train=1, val=1)
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} {names}\n" for wnid, names in NAMES.items()))
    assert [name for name, _ in read(root).classes] == ["tench", "goldfish"]
