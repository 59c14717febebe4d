"""The data sets by name: how each is read, how its files must lie, and what names its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from xclr.evaluation.datasets import imagenet, imagenet9, mit_states, objectnet, real
from xclr.evaluation.datasets.dataset import Benchmark, DatasetLayout, explaining
from xclr.evaluation.datasets.tree import Tree


class Reader(NamedTuple):
    """How a data set is read; all raise DataError, with its layout, for data that are missing, partial or wrong."""

    pictures: Callable[[Tree], list[str]]  # sorted names; opens no picture
    read: Callable[[Tree], Benchmark]
    tables: Callable[[Tree], list[str]]  # names of what else is read
    numbers: Callable[[Tree], Sequence[int]] = lambda tree: ()  # of the classes, where they follow published files


LAYOUTS: Mapping[str, DatasetLayout] = {
    "imagenet": imagenet.LAYOUT,
    "real": real.LAYOUT,
    "imagenet9": imagenet9.LAYOUT,
    "objectnet": objectnet.LAYOUT,
    "mit-states": mit_states.LAYOUT,
}
_ALL: Mapping[str, Reader] = {
    "imagenet": Reader(imagenet.pictures, imagenet.read, imagenet.tables, imagenet.numbers),
    "real": Reader(real.pictures, real.read, real.tables),
    "imagenet9": Reader(imagenet9.pictures, imagenet9.read, imagenet9.tables),
    "objectnet": Reader(objectnet.pictures, objectnet.read, objectnet.tables),
    "mit-states": Reader(mit_states.pictures, mit_states.read, mit_states.tables),
}
READERS: Mapping[str, Reader] = {
    name: Reader(says(reader.pictures), says(reader.read), says(reader.tables), says(reader.numbers))
    for name, reader in _ALL.items()
    for says in [explaining(LAYOUTS[name])]
}
BORDER: Mapping[str, int] = {"objectnet": objectnet.BORDER_PX}  # pixels to cut on each side


def listing(name: str, root: Path) -> str:
    """SHA-256 over name, size and time of change of every file that reading a data set depends on.

    And over its classes' numbers where these are not 0, 1, 2 and so on, as sorted folders would have. Raises what
    reading it raises.
    """
    reader, found = READERS[name], hashlib.sha256()
    with explaining(LAYOUTS[name]):
        tree = Tree.open(root)
        for each in (*reader.pictures(tree), *reader.tables(tree)):
            found.update(tree.entry(each))
        if (numbers := list(reader.numbers(tree))) != list(range(len(numbers))):
            found.update(json.dumps(numbers).encode())
    return found.hexdigest()
