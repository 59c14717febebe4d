"""ImageNet, ILSVRC 2012: train and val with a folder a class, or val flat beside Kaggle's list of its classes."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
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
    pictures_below,
    placed,
    text_of,
)
from xclr.evaluation.datasets.tree import AGAIN, Tree
from xclr.files import HELD_OUT, TRAIN
from xclr.ilsvrc import SOLUTION, TOPS, list_of, no_solution, solution, sort_flat
from xclr.synsets import SYNSET, SYNSETS, distinct, first_name, synset_names

LAYOUT = DatasetLayout(
    f"train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, or val/*.JPEG with {SOLUTION}, and {SYNSETS} if there is one, in a "
    "folder or an uncompressed tar",
    "get ILSVRC 2012 as Kaggle packs it (imagenet-object-localization-challenge), or from image-net.org and sort val "
    "into class folders",
)
VAL = HELD_OUT[0]
CLASSES, VAL_PICTURES = 1_000, 50_000  # of the challenge


class _Found(NamedTuple):
    names: Mapping[str, str]  # of the files, by those that they have in class folders, split/class/file, sorted
    classes: tuple[Class, ...]
    labels: Mapping[str, int]


def pictures(tree: Tree) -> list[str]:
    """The pictures of train and val; raises DataError for another layout or partial data."""
    return list(_found(tree).names.values())


def read(tree: Tree) -> Benchmark:
    """Every picture with the number of its class; splits are "train" and "val".

    A class is numbered among the 1,000 of the challenge, in the order of their synsets, as published files number
    them, also where only some are there. Classes that are others are numbered by the list beside them, sorted.
    """
    names, classes, labels = _found(tree)
    targets = {each: [label] for each, label in labels.items()}
    parts = [name.split("/", 2)[:2] for name in names]
    table = items(list(names.values()), [split for split, _ in parts], [targets[each] for _, each in parts])
    return Benchmark(table, classes, labels=tuple(labels.values()))


def numbers(tree: Tree) -> list[int]:
    """The numbers of the classes that are there, sorted as their folders are; lists no pictures."""
    base = placed(tree, TRAIN, *TOPS)
    return list(_numbered(tree.root / base, tree.folders(base + TRAIN), _given(tree, base)).values())


def tables(tree: Tree) -> list[str]:
    """The list of the synsets' names, where there is one, and that of the classes of a flat val."""
    base = placed(tree, TRAIN, *TOPS)
    names = [SYNSETS, *([SOLUTION] if _is_flat(tree, base) else [])]
    return [path for name in names if (path := list_of(name, base, tree.exists))]


def _found(tree: Tree) -> _Found:
    base = placed(tree, TRAIN, *TOPS)
    flat = _by_list(tree, base) if _is_flat(tree, base) else {}
    train, val = by_folder(tree, base + TRAIN), flat or by_folder(tree, base + VAL)
    _check(tree.root / base, train, val)
    given = _given(tree, base)
    labels = _numbered(tree.root / base, list(train), given)
    names = distinct({each: _names(each, given) for each in train})
    classes = tuple((names[each], each if SYNSET.fullmatch(each) else None) for each in train)
    listed = {name.removeprefix(base): name for each in (train, {} if flat else val) for name in _all(each)}
    listed |= {f"{VAL}/{each}/{name.rpartition('/')[2]}": name for each, names in flat.items() for name in names}
    return _Found(dict(sorted(listed.items())), classes, labels)


def _all(classes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    return (name for names in classes.values() for name in names)


def _is_flat(tree: Tree, base: str) -> bool:
    """Whether the pictures of val lie in no folders."""
    return tree.exists(base + VAL) and not tree.folders(base + VAL) and bool(pictures_below(tree, base + VAL))


def _by_list(tree: Tree, base: str) -> dict[str, list[str]]:
    """The pictures of each class of a flat val, by Kaggle's list; raises DataError where it lacks some."""
    val, path = base + VAL, list_of(SOLUTION, base, tree.exists)
    if path is None:
        raise no_solution(tree.root / val)
    files = [name.removeprefix(f"{val}/") for name in pictures_below(tree, val)]
    found: dict[str, list[str]] = {}
    for name, file in sort_flat(files, solution(text_of(tree, path), tree.root / path), tree.root / path).items():
        found.setdefault(name.partition("/")[0], []).append(f"{val}/{file}")
    return dict(sorted(found.items()))


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
    """All names of each class by the list beside the pictures or above them, where there is one."""
    path = list_of(SYNSETS, base, tree.exists)
    return {} if path is None else synset_names(text_of(tree, path), tree.root / path)


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
