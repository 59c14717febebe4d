"""ImageNet-ReaL: for each of ImageNet's validation pictures every class that it shows, by people's second look."""

from __future__ import annotations

from xclr.errors import DataError
from xclr.evaluation.datasets.dataset import Benchmark, DatasetLayout, items, json_of, placed
from xclr.evaluation.datasets.tree import AGAIN, Tree

LAYOUT = DatasetLayout(
    "real.json, a list that has for each validation picture, in the order of their numbers, the list of its classes; "
    "give the file or the folder that holds it",
    "get real.json from github.com/google-research/reassessed-imagenet",
)
FILE, PICTURE, SPLIT = "real.json", "ILSVRC2012_val_{:08d}.JPEG", "val"
CLASSES = 1_000


def pictures(tree: Tree) -> list[str]:
    """None: the pictures are ImageNet's; raises DataError for labels that cannot be read."""
    _lists(tree)
    return []


def read(tree: Tree) -> Benchmark:
    """The classes, 0..999, of each validation picture by the name of its file: list i is that of number i + 1.

    A picture may have none. The classes are ImageNet's, so that none are named here.
    """
    found = _lists(tree)
    names = [PICTURE.format(number) for number in range(1, len(found) + 1)]
    return Benchmark(items(names, [SPLIT] * len(names), found), ())


def tables(tree: Tree) -> list[str]:
    """The file itself."""
    return [tree.root.name if tree.exists(tree.root.name) else placed(tree, FILE) + FILE]


def _lists(tree: Tree) -> list[list[int]]:
    (name,) = tables(tree)
    found, path = json_of(tree, name), tree.root if tree.root.name == name else tree.root / name
    if not isinstance(found, list) or not found:
        raise DataError(f"{path} is no list of lists", AGAIN)
    for place, classes in enumerate(found):
        if not isinstance(classes, list) or not all(type(each) is int for each in classes):
            raise DataError(f"{path}: entry {place} is no list of whole numbers: {classes!r}"[:300], AGAIN)
        if wrong := [each for each in classes if not 0 <= each < CLASSES]:
            raise DataError(f"{path}: entry {place} has class {wrong[0]}, which is none of 0..{CLASSES - 1}", AGAIN)
    return found
