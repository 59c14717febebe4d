"""What a data source names outside the store: its files, checked and named before any work."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from xclr.captions.archives import archives
from xclr.captions.conceptual import ORDER, check_order
from xclr.captions.emoji import EMOJI_FILES
from xclr.captions.folder import listing
from xclr.captions.source import ARCHIVES, located, require
from xclr.captions.table import hash_pictures, table_of
from xclr.captions.wds import tars
from xclr.files import hash_listing
from xclr.recipe import DataConfig
from xclr.synsets import SYNSETS


def source_files(data: DataConfig) -> tuple[Path, ...]:
    """The files whose content names the captions: tables, a list of classes; raises DataError when one is missing."""
    if data.source == "emoji":
        return tuple(require(path, "emoji") for path in EMOJI_FILES)
    path = located(data)
    if data.source == "imagenet" and archives(data):
        return (require(path / ARCHIVES[-1], "imagenet"),)
    if data.source == "imagenet":
        return (require(path / SYNSETS, "imagenet"),)
    return () if data.source in {"folder", "wds"} else (path,)


def check(data: DataConfig) -> None:
    """Raise DataError for what can be known in a moment: columns that are not there, columns in the other order."""
    if data.source == "table":
        table_of(data)
    elif data.source in ORDER:
        check_order(data)


def captions_listing(data: DataConfig) -> str | None:
    """SHA-256 of the sorted names below a folder, or of the tars' names, sizes and times; None for tables."""
    if packed := tars(data):
        return hash_listing((path.name, path) for path in packed)
    if data.source not in {"folder", "imagenet"}:
        return None
    found = hashlib.sha256()
    for name in listing(data):
        found.update(os.fsencode(name) + b"\0")
    return found.hexdigest()


def pictures_listing(data: DataConfig) -> str | None:
    """SHA-256 of (name, size, mtime_ns) of every picture file, in the order of the rows; None where there are none.

    Raises DataError with the first places of a table whose files are not there.
    """
    if packed := tars(data):
        return hash_listing((path.name, path) for path in packed)
    if data.source in {"folder", "imagenet"}:
        root = located(data)
        return hash_listing((name, root / name) for name in listing(data))
    if data.source == "table" and (table := table_of(data)).types[data.image_column] == "text":
        return hash_pictures(data, table)
    return None
