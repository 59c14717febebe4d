"""ImageNet, ILSVRC 2012: train and val with a folder a synset and the synsets' names, or the tars that hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from xclr.captions import archives, folder
from xclr.captions.archives import ARCHIVES
from xclr.captions.archives import archives as archived
from xclr.captions.source import Class, Records, SourceReader, located, require
from xclr.captions.text import key, normalise
from xclr.errors import DataError
from xclr.files import HELD_OUT, TRAIN, Picture, hash_listing
from xclr.recipe import DataConfig
from xclr.synsets import SYNSETS, first_name, synset_names

ALL = 1_331_167  # pictures of train and val


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
    path = located(data) / SYNSETS
    given = archives.names(data) if archived(data) else synset_names(path.read_text(encoding="utf-8-sig"), path)
    return {synset: first_name(synset, names) for synset, names in given.items()}


def listing(data: DataConfig) -> list[str]:
    """The pictures as sorted names below the folder; with a limit those whose share comes first."""
    return folder.listing(data, (TRAIN, HELD_OUT[0]))


def pictures(data: DataConfig) -> Iterator[Picture]:
    """The files in the order of `captions`."""
    root = located(data).absolute()
    return (root / name for name in listing(data))


def files(data: DataConfig) -> tuple[Path, ...]:
    """The list of the synsets' names: Kaggle's, or that in the devkit."""
    return (require(located(data) / (ARCHIVES[-1] if archived(data) else SYNSETS), data.source),)


def captions_listing(data: DataConfig) -> str:
    """SHA-256 of the names below the folder, or of the tars' names, sizes and times."""
    return _hash_archives(data) or folder.hash_names(listing(data))


def pictures_listing(data: DataConfig) -> str:
    """SHA-256 of the names, sizes and times of the pictures, or of the tars."""
    return _hash_archives(data) or folder.hash_pictures(data, listing(data))


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
