"""A folder with a folder of pictures for every class; captions come from the folders' names."""

from __future__ import annotations

import re
from collections.abc import Iterator

from xclr.captions.source import Records
from xclr.captions.table import HELD_OUT_PICTURES
from xclr.captions.text import key, normalise, share
from xclr.datafiles import TRAIN, Picture, listing, located, split_folders
from xclr.recipe import DataConfig


def captions(data: DataConfig) -> Records:
    """One record a picture, sorted by name. Splits are the folders train and val or test, else drawn by name."""
    splits = split_folders(located(data))
    for name in listing(data):
        parts = name.split("/")
        label = parts[1 if splits else 0]
        yield {
            "key": key("folder", name),
            "caption": normalise(data.caption_template.replace("{}", re.sub(r"[_-]+", " ", label).strip())),
            "label": label,
            "split": _split(parts[0] if splits else None, name),
        }
    return {}


def pictures(data: DataConfig) -> Iterator[Picture]:
    """The files in the order of `captions`."""
    root = located(data).absolute()
    return (root / name for name in listing(data))


def size(data: DataConfig) -> int:
    """How many pictures there are."""
    return len(listing(data))


def _split(part: str | None, name: str) -> str:
    if part is not None:
        return "train" if part == TRAIN else "pictures"
    return "pictures" if share("picture", name) < HELD_OUT_PICTURES else "train"
