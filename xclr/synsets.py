"""WordNet's names of classes, as lists of ImageNet's have them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from xclr.errors import DataError

APART = {  # synsets whose first names are alike but for capitals: as captions they would count as one thing
    "n02012849": "crane bird",
    "n02113186": "Cardigan Welsh corgi",
    "n03126707": "construction crane",
    "n03710637": "maillot",
    "n03710721": "tank suit",
}


def synset_names(text: str, path: Path) -> dict[str, str]:
    """All names of each synset, separated by commas, as Kaggle's list has them; raises DataError for a bare line."""
    found = {}
    for line, each in enumerate(text.splitlines(), start=1):
        synset, _, names = each.strip().partition(" ")
        if not synset:
            continue
        if not names.strip():
            raise DataError(f"{path}: line {line} has no name: {each!r}", "each line is: wnid SPACE names")
        found[synset] = names
    return found


def first_name(synset: str, names: str) -> str:
    """The first name of a synset, told apart from that of another with the same."""
    return APART.get(synset) or names.split(",", maxsplit=1)[0].strip()


def distinct(given: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """A name for each class: the first of its names, then with others of them, at last with its key.

    No two are alike but for capitals, which most text models do not see.
    """
    found = {key: names[0] for key, names in given.items()}
    others = {key: list(names[1:]) for key, names in given.items()}
    while True:
        count = Counter(name.casefold() for name in found.values())
        alike = [key for key, name in found.items() if count[name.casefold()] > 1]
        if not alike:
            return found
        named = [key for key in alike if others[key]]
        for key in named:
            found[key] = f"{given[key][0]}, {others[key].pop(0)}"
        if not named:
            found |= {key: f"{found[key]} ({key})" for key in alike}


SYNSET = re.compile(r"n\d{8}")
SYNSETS = "LOC_synset_mapping.txt"
