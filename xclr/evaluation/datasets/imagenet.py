"""ImageNet, ILSVRC 2012: train and val with a folder a class."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from xclr.errors import DataError
from xclr.evaluation.datasets.dataset import (
    Benchmark,
    Class,
    DatasetLayout,
    by_folder,
    few,
    items,
    partial,
    placed,
    text_of,
)
from xclr.evaluation.datasets.tree import AGAIN, Tree
from xclr.files import HELD_OUT, TRAIN
from xclr.synsets import SYNSET, SYNSETS, distinct, first_name, synset_names

LAYOUT = DatasetLayout(
    f"train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, and {SYNSETS} if there is one, in a folder or an uncompressed tar",
    "get ILSVRC 2012 from image-net.org, or as Kaggle packs it (imagenet-object-localization-challenge), and sort val "
    "into class folders",
)
VAL = HELD_OUT[0]
CLASSES, VAL_PICTURES = 1_000, 50_000  # of the challenge


class _Found(NamedTuple):
    names: list[str]
    classes: tuple[Class, ...]
    labels: Mapping[str, int]
    depth: int  # of the split in a name


def pictures(tree: Tree) -> list[str]:
    """The pictures of train and val; raises DataError for another layout or partial data."""
    return _found(tree).names


def read(tree: Tree) -> Benchmark:
    """Every picture with the number of its class; splits are "train" and "val".

    A class is numbered among the 1,000 of the challenge, in the order of their synsets, as published files number
    them, also where only some are there. Classes that are others are numbered by the list beside them, sorted.
    """
    names, classes, labels, depth = _found(tree)
    targets = {each: [label] for each, label in labels.items()}
    parts = [name.split("/", depth + 2)[depth : depth + 2] for name in names]
    table = items(names, [split for split, _ in parts], [targets[each] for _, each in parts])
    return Benchmark(table, classes, labels=tuple(labels.values()))


def numbers(tree: Tree) -> list[int]:
    """The numbers of the classes that are there, sorted as their folders are; lists no pictures."""
    base = placed(tree, TRAIN)
    return list(_numbered(tree.root / base, tree.folders(base + TRAIN), _given(tree, base)).values())


def tables(tree: Tree) -> list[str]:
    """The list of the synsets' names, where there is one."""
    path = placed(tree, TRAIN) + SYNSETS
    return [path] if tree.exists(path) else []


def _found(tree: Tree) -> _Found:
    base = placed(tree, TRAIN)
    train, val = (by_folder(tree, base + part) for part in (TRAIN, VAL))
    _check(tree.root / base, train, val)
    given = _given(tree, base)
    labels = _numbered(tree.root / base, list(train), given)
    names = distinct({each: _names(each, given) for each in train})
    classes = tuple((names[each], each if SYNSET.fullmatch(each) else None) for each in train)
    listed = [name for part in (train, val) for each in part.values() for name in each]
    return _Found(sorted(listed), classes, labels, base.count("/"))


def _check(root: Path, train: Mapping[str, Sequence[str]], val: Mapping[str, Sequence[str]]) -> None:
    """Refuse classes without pictures, classes of val alone, and a validation set that was cut short."""
    for part, classes in ((TRAIN, train), (VAL, val)):
        if empty := [each for each, names in classes.items() if not names]:
            raise partial(root / part, f"class folders without pictures: {few(empty)}")
    if unknown := [each for each in val if each not in train]:
        raise DataError(f"{root / VAL} has classes that {TRAIN} lacks: {few(unknown)}", AGAIN)
    held_out = sum(map(len, val.values()))
    if len(train) == CLASSES and all(map(SYNSET.fullmatch, train)) and held_out != VAL_PICTURES:
        raise partial(root / VAL, f"{held_out:,} of {VAL_PICTURES:,} pictures of the {CLASSES:,} classes")


def _given(tree: Tree, base: str) -> Mapping[str, str]:
    """All names of each class by the list beside the pictures, where there is one."""
    path = base + SYNSETS
    return synset_names(text_of(tree, path), tree.root / path) if tree.exists(path) else {}


def _numbered(root: Path, folders: Sequence[str], given: Mapping[str, str]) -> dict[str, int]:
    """The number of each class; raises DataError for folders that nothing numbers, with the names they are near to."""
    from xclr.graph.wordnet import imagenet_synsets

    known: Sequence[str] = imagenet_synsets()
    if given and not all(each in known for each in folders):
        known = sorted(given)
    place = {each: number for number, each in enumerate(known)}
    if unknown := [each for each in folders if each not in place]:
        what = f"{SYNSETS} does not name" if given else "are none of ImageNet's 1,000 classes"
        said = [f"{each}{_near(each, known, given)}" for each in unknown]
        raise DataError(
            f"{root / TRAIN} has folders that {what}: {few(said)}",
            f"name each by its synset, as n01440764, or list them in {root / SYNSETS}, a line each: FOLDER NAME, NAME",
        )
    return {each: place[each] for each in folders}


def _near(folder: str, known: Sequence[str], given: Mapping[str, str]) -> str:
    """What a folder may be meant for: the class of that name, or of a synset that is almost the same."""
    names = given or _shipped()
    called = {name.casefold(): each for each in known for name in _words(names[each])}
    near = difflib.get_close_matches(folder, known, n=1, cutoff=0.8)
    spoken = difflib.get_close_matches(folder.replace("_", " ").casefold(), list(called), n=1, cutoff=0.8)
    found = near[0] if near else called[spoken[0]] if spoken else None
    return "" if found is None else f" (did you mean {found}, {_words(names[found])[0]}?)"


def _names(folder: str, given: Mapping[str, str]) -> list[str]:
    """The names of a class: by the list, or by WordNet."""
    if folder in given:
        return [first_name(folder, given[folder]), *_words(given[folder])[1:]]
    return [first_name(folder, _shipped()[folder])]


def _words(names: str) -> list[str]:
    return [each.strip() for each in names.split(",") if each.strip()]


@cache
def _shipped() -> dict[str, str]:
    """First names of WordNet's synsets that ImageNet's classes are or lie below: dog for dog.n.01."""
    from xclr.graph.wordnet import shipped

    return {each: name.rsplit(".", 2)[0].replace("_", " ") for each, name in shipped().names.items()}
