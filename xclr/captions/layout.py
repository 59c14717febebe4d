"""The files of a person's table: one, those of a glob, or those of a folder as Hugging Face lays them out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from xclr.captions.tablefile import ENDINGS, ending_of
from xclr.errors import DataError
from xclr.files import HELD_OUT, NOT_TRAINED, TRAIN
from xclr.names import paths_of, root_of

METADATA = "metadata"  # a table of this name stands beside the pictures that it names
LEARNED = frozenset({TRAIN, "training"})
JUDGED = frozenset({*HELD_OUT, "testing", "evaluation"})
SPELLED = "train for what is learned from; val, valid, validation, test, dev or eval for what is held out"


class File(NamedTuple):
    """A file of a table, the folder that it lies in below data.path, and its split where names tell it."""

    path: Path
    below: str = ""
    split: str | None = None


def split_of(word: str) -> str | None:
    """The split that a word stands for, in any case; None for a word that is none."""
    word = word.strip().lower()
    return TRAIN if word in LEARNED else NOT_TRAINED[0] if word in JUDGED else None


def files_at(path: Path) -> list[File]:
    """The files at a path, training rows first; raises DataError where there is none, or it cannot be told which."""
    if path.is_file():
        return [File(path)]
    root = root_of(path)
    found = _of_folder(path) if path.is_dir() else _matched(path)
    files = [_file(each, each.relative_to(root)) for each in found]
    return sorted(files, key=lambda each: (each.split != TRAIN, each.path))


def _file(path: Path, name: Path) -> File:
    below = name.parent.as_posix()
    return File(path, below if name.parent.parts else "", _split_in(name))


def by_names(path: Path, files: Sequence[File]) -> list[File]:
    """The files with the splits that their names tell; with none where no name does, or all say train.

    Raises DataError where only some names tell a split, or none tells train.
    """
    splits = {each.split for each in files}
    if splits in ({None}, {TRAIN}):
        return [each._replace(split=None) for each in files]
    unsaid = [each.path for each in files if each.split is None]
    if unsaid:
        raise DataError(
            f"{unsaid[0]}: its name tells no split, but others there do", f"move it away, or name it as them: {SPELLED}"
        )
    if TRAIN not in splits:
        names = ", ".join(f"{Path(each.below, each.path.name)}" for each in files[:3]) + ", ..." * (len(files) > 3)
        raise DataError(
            f"{path} has no training rows, as the files' names tell: {names}",
            "put train-*.parquet, or a folder train, beside them, or name the files otherwise",
        )
    return list(files)


def _split_in(name: Path) -> str | None:
    """The split that a name tells, or else that of the folder it is in: train-00000-of-00002.parquet, test/0.csv."""
    words = (word for part in reversed(name.parts) for word in re.findall("[A-Za-z]+", part))
    return next((split for word in words if (split := split_of(word))), None)


def _matched(path: Path) -> list[Path]:
    found = [each for each in paths_of(path) if each.is_file() or not each.exists()]  # no pipes
    if not found:
        raise DataError(f"{path} matches no file", "set data.path to a glob of files, such as data/train-*.parquet")
    if lost := [each for each in found if not each.exists()]:
        raise DataError(
            f"{path}: {len(lost)} of {len(found)} files are not there, first {lost[0]}",
            "put them there, or name fewer",
        )
    return found


def _of_folder(root: Path) -> list[Path]:
    """Metadata files, or else tables: its own, or else those of the folders in it."""
    inner = sorted(each for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))
    own, deeper = _tables(root), [table for each in inner for table in _tables(each)]
    for found in (own, deeper):
        if metadata := [each for each in found if each.name.partition(".")[0] == METADATA]:
            return _of_one_kind(root, metadata)
    return _of_one_kind(root, own or deeper)


def _tables(folder: Path) -> list[Path]:
    return sorted(
        each for each in folder.iterdir() if ending_of(each) and not each.name.startswith(".") and each.is_file()
    )


def _of_one_kind(root: Path, found: list[Path]) -> list[Path]:
    """The tables found in a folder; raises DataError when there is none, or they are of several kinds."""
    if not found:
        known = ", ".join(f"*{each}" for each in ENDINGS)
        raise DataError(
            f"{root} holds no table, nor do its folders", f"put one there ({known}), or set data.source: folder"
        )
    kinds = {ending_of(each): each.relative_to(root).as_posix() for each in found}
    if len(kinds) > 1:
        raise DataError(
            f"{root} holds tables of several kinds: " + ", ".join(kinds.values()),
            "set data.path to the one that is meant, or to a glob such as data/*.parquet",
        )
    return found
