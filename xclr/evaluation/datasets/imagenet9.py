"""ImageNet-9, the backgrounds challenge: nine groups of classes on backgrounds of eight kinds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from xclr.errors import DataError
from xclr.evaluation.datasets.dataset import Benchmark, DatasetLayout, by_folder, few, items, partial, placed, table_of
from xclr.evaluation.datasets.tree import AGAIN, Tree

VARIANTS = ("original", "mixed_same", "mixed_rand", "mixed_next", "no_fg", "only_bg_b", "only_bg_t", "only_fg")
TOP, VAL, TABLE = "bg_challenge", "val", "in_to_in9.json"
FOLDER = re.compile(r"(\d+)_(.+)")  # 02_wheeled vehicle
LAYOUT = DatasetLayout(
    f"<variant>/val/<00_dog ... 08_fish>/*, variants {', '.join(VARIANTS)}, and {TABLE}, in a folder or an "
    f"uncompressed tar; the variants may lie in {TOP}/",
    f"get backgrounds_challenge_data.tar.gz of the release and {TABLE} from github.com/MadryLab/backgrounds_challenge",
)


class _Found(NamedTuple):
    names: list[str]
    groups: tuple[str, ...]
    mapping: tuple[int, ...]
    depth: int  # of the variant in a name


def pictures(tree: Tree) -> list[str]:
    """The pictures of all variants; raises DataError for another layout or partial data."""
    return _found(tree).names


def read(tree: Tree) -> Benchmark:
    """Every picture with the number of its folder; the split is the variant.

    `mapping` has the group of each of ImageNet's classes, -1 for none.
    """
    names, groups, mapping, depth = _found(tree)
    parts = [name.split("/")[depth:] for name in names]
    table = items(names, [each[0] for each in parts], [[int(each[2].partition("_")[0])] for each in parts])
    return Benchmark(table, tuple((each, None) for each in groups), mapping)


def tables(tree: Tree) -> list[str]:
    """The file that leads from ImageNet's classes to the groups."""
    base = _base(tree)
    return [base + TABLE if tree.exists(base + TABLE) else TABLE]


def _base(tree: Tree) -> str:
    return placed(tree, f"{VARIANTS[0]}/{VAL}", TOP)


def _found(tree: Tree) -> _Found:
    base = _base(tree)
    if missing := [each for each in VARIANTS if not tree.exists(f"{base}{each}/{VAL}")]:
        raise partial(tree.root / base, f"no {', '.join(f'{each}/{VAL}' for each in missing)}")
    found = {each: by_folder(tree, f"{base}{each}/{VAL}") for each in VARIANTS}
    groups = _groups(tree, base, found)
    names = sorted(name for each in found.values() for listed in each.values() for name in listed)
    return _Found(names, groups, _mapping(tree, len(groups)), base.count("/"))


def _groups(tree: Tree, base: str, found: Mapping[str, Mapping[str, list[str]]]) -> tuple[str, ...]:
    """The groups in the order of their numbers; every variant must have all of them and equally many pictures."""
    first = found[VARIANTS[0]]
    matches = {each: FOLDER.fullmatch(each) for each in first}
    if wrong := [each for each, match in matches.items() if match is None]:
        raise DataError(f"{tree.root / base / VARIANTS[0] / VAL} has folders without a number: {few(wrong)}", AGAIN)
    groups = sorted((int(match[1]), match[2]) for match in matches.values() if match)
    if [number for number, _ in groups] != list(range(len(groups))):
        raise partial(tree.root / base / VARIANTS[0] / VAL, f"the folders are not 00 to {len(groups) - 1:02d}")
    if other := [each for each in VARIANTS if set(found[each]) != set(first)]:
        raise partial(tree.root / base, f"other folders than in {VARIANTS[0]}: {few(other)}")
    counts = {each: sum(map(len, found[each].values())) for each in VARIANTS}
    if len(set(counts.values())) != 1 or not all(counts.values()):
        raise partial(tree.root / base, "pictures: " + ", ".join(f"{each} {count:,}" for each, count in counts.items()))
    return tuple(name for _, name in groups)


def _mapping(tree: Tree, groups: int) -> tuple[int, ...]:
    (name,) = tables(tree)
    found = table_of(tree, name, int)
    if set(found) != {str(label) for label in range(len(found))}:
        raise DataError(f"{tree.root / name}: the keys are not 0 to {len(found) - 1}", AGAIN)
    if wrong := [label for label, group in found.items() if not -1 <= group < groups]:
        raise DataError(f"{tree.root / name}: class {wrong[0]} is in group {found[wrong[0]]} of {groups}", AGAIN)
    return tuple(found[str(label)] for label in range(len(found)))
