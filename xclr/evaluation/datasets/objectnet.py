"""ObjectNet: household things from odd sides and in odd places; a test set alone, never to be trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import chain
from typing import NamedTuple

from xclr.errors import DataError
from xclr.evaluation.datasets.dataset import (
    Benchmark,
    DatasetLayout,
    few,
    items,
    partial,
    pictures_below,
    placed,
    table_of,
    text_of,
)
from xclr.evaluation.datasets.tree import AGAIN, Tree

TOP, IMAGES, SPLIT = "objectnet-1.0", "images", "test"
LABELS, OVERLAP, IDS, NAMES = (
    "mappings/folder_to_objectnet_label.json",
    "mappings/objectnet_to_imagenet_1k.json",
    "mappings/pytorch_to_imagenet_2012_id.json",
    "mappings/imagenet_to_label_2012_v2",
)
BORDER_PX = 2  # red, on each side
LAYOUT = DatasetLayout(
    f"images/<folder>/*.png and mappings/ with its four files, in a folder or an uncompressed tar; both may "
    f"lie in {TOP}/",
    "get objectnet-1.0.zip from objectnet.dev",
)


class _Found(NamedTuple):
    names: list[str]
    labels: Mapping[str, str]  # of the folders
    targets: Mapping[str, list[int]]  # of the labels, sorted
    depth: int  # of the folder in a name


def pictures(tree: Tree) -> list[str]:
    """The pictures of the labels that ImageNet has too; raises DataError for another layout or partial data."""
    return _found(tree).names


def read(tree: Tree) -> Benchmark:
    """These pictures with every class of ImageNet that counts as right, as PyTorch numbers them.

    The attribute is the index of ObjectNet's own label among the sorted ones, which are the classes.
    """
    names, labels, targets, depth = _found(tree)
    number = {label: index for index, label in enumerate(targets)}
    shown = [labels[name.split("/")[depth]] for name in names]
    table = items(names, [SPLIT] * len(names), [targets[each] for each in shown], [number[each] for each in shown])
    return Benchmark(table, tuple((label, None) for label in targets))


def tables(tree: Tree) -> list[str]:
    """The files that lead from folders to labels, and from these to classes."""
    base = placed(tree, IMAGES, TOP)
    return [base + each for each in (LABELS, OVERLAP, IDS, NAMES)]


def _found(tree: Tree) -> _Found:
    base = placed(tree, IMAGES, TOP)
    labels = table_of(tree, base + LABELS, str)
    folders = tree.folders(base + IMAGES)
    if unknown := [each for each in folders if each not in labels]:
        raise DataError(f"{tree.root / base / LABELS} does not know folders of {IMAGES}: {few(unknown)}", AGAIN)
    targets = _targets(tree, base)
    found = {each: pictures_below(tree, f"{base}{IMAGES}/{each}") for each in folders if labels[each] in targets}
    shown = {labels[folder] for folder, names in found.items() if names}
    if missing := [label for label in targets if label not in shown]:
        raise partial(tree.root / base / IMAGES, f"labels without pictures: {few(missing)}")
    return _Found(sorted(chain.from_iterable(found.values())), labels, targets, base.count("/") + 1)


def _targets(tree: Tree, base: str) -> dict[str, list[int]]:
    """PyTorch's indices of the classes that each label may be; a class's line in the list of names is its id."""
    overlap, ids = table_of(tree, base + OVERLAP, str), table_of(tree, base + IDS, int)
    if len(set(ids.values())) != len(ids) or not all(each.isdecimal() for each in ids):
        raise DataError(f"{tree.root / base / IDS} does not give each class an id of its own", AGAIN)
    index = {line: int(each) for each, line in ids.items()}
    known: dict[str, list[int]] = defaultdict(list)
    for line, name in enumerate(text_of(tree, base + NAMES).split("\n")):
        if line in index:
            known[name.strip()].append(index[line])
    wanted = {label: overlap[label].split("; ") for label in sorted(overlap)}
    if unknown := [name for names in wanted.values() for name in names if name not in known]:
        raise DataError(f"{tree.root / base / NAMES} lacks names of {OVERLAP}: {few(unknown)}", AGAIN)
    return {label: sorted({each for name in names for each in known[name]}) for label, names in wanted.items()}
