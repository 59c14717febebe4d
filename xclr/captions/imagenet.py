"""ImageNet, ILSVRC 2012: train and val with a folder a synset, or Kaggle's flat val, or the tars that hold them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from xclr.captions import archives, folder
from xclr.captions.archives import ARCHIVES
from xclr.captions.archives import archives as archived
from xclr.captions.source import Class, Records, SourceReader, located, require
from xclr.captions.text import key, normalise
from xclr.errors import DataError
from xclr.files import HELD_OUT, TRAIN, Picture, hash_listing, is_picture, read_list
from xclr.ilsvrc import SOLUTION, base_of, list_of, no_solution, solution, sort_flat
from xclr.recipe import DataConfig
from xclr.synsets import SYNSETS, first_name, synset_names

ALL = 1_331_167  # pictures of train and val
VAL = HELD_OUT[0]


class _Sorted(NamedTuple):
    root: Path  # the folder of train and val
    names: list[str]  # sorted, as in class folders
    flat: Mapping[str, str]  # where in `root` a file lies that has another name there

    def file(self, name: str) -> Path:
        return self.root / self.flat.get(name, name)


def captions(data: DataConfig) -> Records:
    """One record a picture: train is split "train", val split "pictures"; the class is the synset.

    Folders and tars give the same records, but for "place", which says where in a tar a picture lies.
    """
    names = _names(data)
    for name, place in _listed(data):
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
            "path": name,
        } | ({"place": place} if place else {})
    return {}


def size(data: DataConfig) -> int:
    """How many pictures there are; of the tars as many as the challenge has."""
    return ALL if archived(data) else len(listing(data))


def classes(data: DataConfig, labels: Sequence[str]) -> list[Class]:
    """The synsets' names, told apart."""
    names = _names(data)
    return [Class(names[label], label) for label in labels]


def _listed(data: DataConfig) -> Iterator[tuple[str, tuple[str, int, int] | None]]:
    """Sorted names below the folders, of the tars with the file, offset and size of each."""
    if not archived(data):
        yield from ((name, None) for name in listing(data))
        return
    packed = {each.name: (each.file, each.offset, each.size) for each in archives.pictures(data)}
    yield from ((name, packed[name]) for name in sorted(folder.drawn(list(packed), data.limit)))


def _names(data: DataConfig) -> dict[str, str]:
    """The first name of each synset, told apart where two have the same."""
    if archived(data):
        given: Mapping[str, str] = archives.names(data)
    else:
        (path,) = files(data)
        given = synset_names(read_list(path), path)
    return {synset: first_name(synset, names) for synset, names in given.items()}


def listing(data: DataConfig) -> list[str]:
    """The pictures as sorted names in class folders; with a limit those whose share comes first."""
    return _sorted(data).names


def _sorted(data: DataConfig) -> _Sorted:
    """The pictures below the folder, those of a flat val sorted by Kaggle's list."""
    root = located(data).absolute() / _base(data)
    flat = _flat(data, root / VAL)
    names = folder.below(root, [TRAIN] if flat else [TRAIN, VAL], data.source)
    return _Sorted(root, sorted(folder.drawn([*names, *flat], data.limit)), flat)


def _flat(data: DataConfig, val: Path) -> dict[str, str]:
    """The files of val by their names in class folders, where none lies in a folder."""
    with os.scandir(require(val, data.source)) as entries:
        each = list(entries)
    loose = [entry.name for entry in each if is_picture(entry.name)]
    if not loose or any(entry.is_dir() and not entry.name.startswith(".") for entry in each):
        return {}
    path = _list(data, SOLUTION)
    if path is None:
        raise no_solution(val)
    synsets = solution(read_list(path), path)
    return {f"{VAL}/{name}": f"{VAL}/{file}" for name, file in sort_flat(loose, synsets, path).items()}


def _base(data: DataConfig) -> str:
    return base_of(lambda name: (located(data) / name).exists())


def _list(data: DataConfig, name: str) -> Path | None:
    """A list of Kaggle's, beside train and val or above them."""
    root = located(data)
    found = list_of(name, _base(data), lambda place: (root / place).exists())
    return None if found is None else (root / found).resolve() if found.startswith("..") else root / found


def pictures(data: DataConfig) -> Iterator[Picture]:
    """The files in the order of `captions`."""
    found = _sorted(data)
    return (found.file(name) for name in found.names)


def files(data: DataConfig) -> tuple[Path, ...]:
    """The list of the synsets' names: Kaggle's, or that in the devkit."""
    if archived(data):
        return (require(located(data) / ARCHIVES[-1], data.source),)
    return (_list(data, SYNSETS) or require(located(data) / SYNSETS, data.source),)


def captions_listing(data: DataConfig) -> str:
    """SHA-256 of the names below the folder, or of the tars' names, sizes and times."""
    return _hash_archives(data) or folder.hash_names(listing(data))


def pictures_listing(data: DataConfig) -> str:
    """SHA-256 of the names, sizes and times of the pictures, or of the tars."""
    if packed := _hash_archives(data):
        return packed
    found = _sorted(data)
    return hash_listing((name, found.file(name)) for name in found.names)


def _hash_archives(data: DataConfig) -> str:
    packed = archived(data)
    return hash_listing((path.name, path) for path in packed) if packed else ""


READER = SourceReader(
    captions,
    size,
    pictures,
    classes,
    files=files,
    captions_listing=captions_listing,
    pictures_listing=pictures_listing,
)
