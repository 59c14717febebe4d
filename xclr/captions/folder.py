"""A folder with a folder of pictures for every class; captions come from the folders' names."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from xclr.captions.source import Records, SourceReader, located, no_tables, remedy_of, require
from xclr.captions.table import HELD_OUT_PICTURES
from xclr.captions.text import key, normalise, share
from xclr.errors import DataError
from xclr.files import HELD_OUT, SUFFIXES, TRAIN, Picture, hash_listing, is_text
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


def listing(data: DataConfig, parts: Sequence[str] = ()) -> list[str]:
    """The pictures of a folder source as sorted relative names; with a limit those whose share comes first.

    `parts` are the folders of the splits where the source has these. Raises DataError when the folder has no class
    folders or no pictures.
    """
    root = located(data)
    above = [f"{part}/" for part in parts or split_folders(root)] or [""]
    names = [part + name for part in above for name in _of_classes(root / part, data.source)]
    if broken := [name for name in names if not is_text(name)]:
        raise DataError(f"{root}: {len(broken)} file names are not UTF-8, first {broken[0]!r}", "rename these files")
    return sorted(drawn(names, data.limit))


def drawn(names: list[str], limit: int | None) -> list[str]:
    """So many names, all for None, whose share comes first: which ones depends on each name alone."""
    if limit is None or limit >= len(names):
        return names
    return sorted(names, key=lambda name: hashlib.blake2b(os.fsencode(name), digest_size=8).digest())[:limit]


def split_folders(root: Path) -> list[str]:
    """The names of the splits where the folders of `root` are train and val or test, which hold the classes."""
    names = _folders(root)
    splits = len(names) > 1 and TRAIN in names and set(names) <= {TRAIN, *HELD_OUT}
    return names if splits and all(_folders(root / name) for name in names) else []


def _of_classes(root: Path, source: str) -> list[str]:
    """Pictures below the class folders of `root`, as names relative to it; raises DataError when there are none."""
    classes = _folders(require(root, source))
    if not classes:
        raise DataError(
            f"{root} has no class folders", remedy_of(source, "put the pictures of each class into a folder")
        )
    names = [f"{each}/{name}" for each in classes for name in pictures_below(root / each)]
    if not names:
        endings = ", ".join(sorted(SUFFIXES))
        raise DataError(f"the class folders of {root} hold no pictures", f"pictures are files that end in {endings}")
    return names


def pictures_below(folder: Path) -> Iterator[str]:
    """Pictures at any depth as names relative to the folder, in no order; links to folders are not followed."""
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(here).relative_to(folder)
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield (below / name).as_posix()


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(each.name for each in entries if each.is_dir() and not each.name.startswith("."))


def hash_names(names: Iterable[str]) -> str:
    """SHA-256 of names."""
    return hashlib.sha256(b"".join(os.fsencode(name) + b"\0" for name in names)).hexdigest()


def hash_pictures(data: DataConfig, names: Iterable[str]) -> str:
    """SHA-256 of the names, sizes and times of pictures below the folder."""
    root = located(data)
    return hash_listing((name, root / name) for name in names)


READER = SourceReader(
    captions,
    size,
    pictures,
    files=no_tables,
    captions_listing=lambda data: hash_names(listing(data)),
    pictures_listing=lambda data: hash_pictures(data, listing(data)),
)
