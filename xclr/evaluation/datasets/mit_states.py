"""MIT-States: nouns in the states that adjectives name."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

from xclr.errors import DataError
from xclr.evaluation.datasets.dataset import Benchmark, DatasetLayout, by_folder, few, items, partial, placed
from xclr.evaluation.datasets.tree import Tree

TOP, IMAGES, SPLIT = "release_dataset", "images", "all"
BARE = "adj "  # folders that begin so show a noun without an adjective
LAYOUT = DatasetLayout(
    f"images/<adjective> <noun>/*.jpg in a folder or an uncompressed tar; images may lie in {TOP}/",
    "get release_dataset.zip from web.mit.edu/phillipi/Public/states_and_transformations",
)


class _Found(NamedTuple):
    names: list[str]
    pairs: dict[str, tuple[str, str]]  # adjective and noun of the folders
    depth: int  # of the folder in a name


def pictures(tree: Tree) -> list[str]:
    """The pictures of nouns with adjectives; raises DataError for another layout or partial data."""
    return _found(tree).names


def read(tree: Tree) -> Benchmark:
    """These pictures with the index of the noun among the sorted nouns, which are the classes; the split is "all".

    The attribute is the index of the adjective among the sorted adjectives.
    """
    names, pairs, depth = _found(tree)
    adjectives, nouns = (sorted(set(each)) for each in zip(*pairs.values(), strict=True))
    adjective, noun = ({name: index for index, name in enumerate(each)} for each in (adjectives, nouns))
    shown = [pairs[name.split("/")[depth]] for name in names]
    targets, attributes = [[noun[each]] for _, each in shown], [adjective[each] for each, _ in shown]
    return Benchmark(items(names, [SPLIT] * len(names), targets, attributes), tuple((each, None) for each in nouns))


def tables(tree: Tree) -> list[str]:
    """None: the folders' names say all."""
    return []


def _found(tree: Tree) -> _Found:
    base = placed(tree, IMAGES, TOP)
    found = {name: listed for name, listed in by_folder(tree, base + IMAGES).items() if not name.startswith(BARE)}
    pairs = {name: _pair(name) for name in found}
    if wrong := [name for name, (adjective, noun) in pairs.items() if not adjective or not noun]:
        raise DataError(
            f"{tree.root / base / IMAGES} has folders that are no adjective, space and noun: {few(wrong)}",
            "keep the names as published",
        )
    if empty := [name for name, listed in found.items() if not listed]:
        raise partial(tree.root / base / IMAGES, f"folders without pictures: {few(empty)}")
    if not found:
        raise partial(tree.root / base / IMAGES, f"only folders that begin with {BARE!r}")
    return _Found(sorted(chain.from_iterable(found.values())), pairs, base.count("/") + 1)


def _pair(name: str) -> tuple[str, str]:
    adjective, _, noun = name.partition(" ")
    return adjective.strip(), noun.strip()
