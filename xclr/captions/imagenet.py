"""ImageNet as ILSVRC 2012 gives it: train and val with a folder a synset, and the synsets' names."""

from __future__ import annotations

from collections.abc import Sequence

from xclr.captions.source import Class, Records
from xclr.captions.text import key, normalise
from xclr.datafiles import SYNSETS, TRAIN, listing, located
from xclr.errors import DataError
from xclr.recipe import DataConfig

APART = {  # synsets whose first names are alike: as captions they would count as one thing
    "n02012849": "crane bird",
    "n03126707": "construction crane",
    "n03710637": "maillot",
    "n03710721": "tank suit",
}


def captions(data: DataConfig) -> Records:
    """One record a picture: train is split "train", val split "pictures"; the class is the synset."""
    names = _names(data)
    for name in listing(data):
        part, synset = name.split("/")[:2]
        if synset not in names:
            raise DataError(
                f"{located(data) / part / synset}: {SYNSETS} does not name this folder",
                "keep the folders of the 1,000 synsets only, n01440764 and so on",
            )
        yield {
            "key": key("imagenet", name),
            "caption": normalise(data.caption_template.replace("{}", names[synset])),
            "label": synset,
            "split": "train" if part == TRAIN else "pictures",
        }
    return {}


def classes(data: DataConfig, labels: Sequence[str]) -> list[Class]:
    """The synsets' names, told apart."""
    names = _names(data)
    return [Class(names[label], label) for label in labels]


def _names(data: DataConfig) -> dict[str, str]:
    """The first name of each synset, told apart where two have the same."""
    names = {}
    path = located(data) / SYNSETS
    for line, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        synset, _, all_names = text.strip().partition(" ")
        if not synset:
            continue
        if not all_names.strip():
            raise DataError(f"{path}: line {line} has no name: {text!r}", "each line is: wnid SPACE names")
        names[synset] = APART.get(synset) or all_names.split(",")[0].strip()
    return names
