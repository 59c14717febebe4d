"""ImageNet, ILSVRC 2012: train and val with a folder a class."""

from __future__ import annotations

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
SHIPPED = Path(__file__).parents[2] / "graph" / "data" / "imagenet_synsets.parquet"


class _Found(NamedTuple):
    names: list[str]
    classes: tuple[Class, ...]
    labels: Mapping[str, int]
    depth: int  # of the split in a name


def pictures(tree: Tree) -> list[str]:
    """The pictures of train and val; raises DataError for another layout or partial data."""
    return _found(tree).names


def read(tree: Tree) -> Benchmark:
    """Every picture with the index of its class among the sorted folders of train; splits are "train" and "val"."""
    names, classes, labels, depth = _found(tree)
    targets = {each: [label] for each, label in labels.items()}
    parts = [name.split("/", depth + 2)[depth : depth + 2] for name in names]
    table = items(names, [split for split, _ in parts], [targets[each] for _, each in parts])
    return Benchmark(table, classes)


def tables(tree: Tree) -> list[str]:
    """The list of the synsets' names, where there is one."""
    path = placed(tree, TRAIN) + SYNSETS
    return [path] if tree.exists(path) else []


def _found(tree: Tree) -> _Found:
    base = placed(tree, TRAIN)
    train, val = (by_folder(tree, base + part) for part in (TRAIN, VAL))
    _check(tree.root / base, train, val)
    names = distinct(_names(tree, base, list(train)))
    classes = tuple((names[each], each if SYNSET.fullmatch(each) else None) for each in train)
    labels = {each: label for label, each in enumerate(train)}
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


def _names(tree: Tree, base: str, folders: Sequence[str]) -> dict[str, list[str]]:
    """The names of each class folder: by the list beside them, by WordNet for synsets, or the folder's own."""
    path = base + SYNSETS
    if tree.exists(path):
        given = synset_names(text_of(tree, path), tree.root / path)
        if missing := [each for each in folders if each not in given]:
            raise DataError(f"{tree.root / path} does not name class folders: {few(missing)}", AGAIN)
        return {each: [first_name(each, given[each]), *_words(given[each])[1:]] for each in folders}
    known = _shipped()
    if all(each in known for each in folders):
        return {each: [first_name(each, known[each])] for each in folders}
    return {each: [each.replace("_", " ").strip() or each] for each in folders}


def _words(names: str) -> list[str]:
    return [each.strip() for each in names.split(",") if each.strip()]


@cache
def _shipped() -> dict[str, str]:
    """First names of WordNet's synsets that ImageNet's classes are or lie below: dog for dog.n.01."""
    from xclr import schema

    rows = schema.read(SHIPPED, schema.TAXONOMY, ["synset", "name"]).to_pylist()
    return {each["synset"]: each["name"].rsplit(".", 2)[0].replace("_", " ") for each in rows}
