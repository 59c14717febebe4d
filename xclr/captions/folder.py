"""A folder with a folder of pictures for every class; captions come from the folders' names."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from shlex import quote

from xclr.captions.source import Records, SourceReader, located, no_tables, remedy_of, require
from xclr.captions.table import FILE_NAME, HELD_OUT_PICTURES
from xclr.captions.tablefile import open_table
from xclr.captions.text import key, normalise, readable, share
from xclr.errors import DataError
from xclr.files import HELD_OUT, SUFFIXES, TRAIN, Picture, hash_listing, is_picture, is_text
from xclr.recipe import DataConfig

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of Hugging Face's imagefolder
JUNK = frozenset({"__MACOSX", "@eaDir"})  # of archives and network disks, like folders whose names start with a dot
ALWAYS = frozenset({"train", "val", "test"})  # splits of the first edition, whose listings are named as ever


def captions(data: DataConfig) -> Records:
    """One record a picture, sorted by name. Splits are the folders train and val or the like, else drawn by name."""
    names, splits = listing(data), split_folders(located(data))
    for name in names:
        parts = name.split("/")
        label = readable(parts[1 if splits else 0])
        yield {
            "key": key("folder", name),
            "caption": normalise(data.caption_template.replace("{}", spoken(label))),
            "label": label,
            "split": _split(parts[0] if len(splits) > 1 else None, name),
            "path": name,
        }
    return {}


def spoken(label: str) -> str:
    """The name of a class folder as captions have it."""
    return re.sub(r"[_-]+", " ", label).strip()


def pictures(data: DataConfig) -> Iterator[Picture]:
    """The files in the order of `captions`."""
    root = located(data).absolute()
    return (root / name for name in listing(data))


def size(data: DataConfig) -> int:
    """How many pictures there are."""
    return len(listing(data))


def _split(part: str | None, name: str) -> str:
    if part is not None:
        return "train" if part.lower() == TRAIN else "pictures"
    return "pictures" if share("picture", name) < HELD_OUT_PICTURES else "train"


def listing(data: DataConfig) -> list[str]:
    """The pictures as sorted relative names; with a limit those whose share comes first.

    Raises DataError when the folder has no class folders or no pictures, or holds a table of captions.
    """
    root = located(data)
    check_table(root)
    return sorted(drawn(below(root, split_folders(root), data.source), data.limit))


def below(root: Path, parts: Sequence[str], source: str) -> list[str]:
    """The pictures below the class folders of `root`, or of its folders `parts`, as names relative to it."""
    above = [f"{part}/" for part in parts] or [""]
    names = [part + name for part in above for name in _of_classes(root / part, source)]
    if broken := [name for name in names if not is_text(name)]:
        raise DataError(f"{root}: {len(broken)} file names are not UTF-8, first {broken[0]!r}", "rename these files")
    return names


def drawn(names: list[str], limit: int | None) -> list[str]:
    """So many names, all for None, whose share comes first: which ones depends on each name alone."""
    if limit is None or limit >= len(names):
        return names
    return sorted(names, key=lambda name: hashlib.blake2b(os.fsencode(name), digest_size=8).digest())[:limit]


def split_folders(root: Path) -> list[str]:
    """The names of the splits, which hold the classes, where the folders of `root` are train and others of HELD_OUT.

    Folders without pictures beside them do not count. Of train alone a part is held out, as of class folders. Raises
    DataError for folders of such names that are no splits.
    """
    names = _folders(root)
    splits = [name for name in names if is_split(name)]
    others = [name for name in names if name not in splits]
    train = [name for name in splits if name.lower() == TRAIN]
    if not splits or (others and not train) or any(next(pictures_below(root / name), None) for name in others):
        return []
    flat = [name for name in splits if not _folders(root / name)]
    if flat or not train:
        raise _no_splits(root, flat or splits, "no class folders" if flat else "no train beside it")
    return splits


def is_split(name: str) -> bool:
    """True for a folder that is called as splits are."""
    return name.lower() in {TRAIN, *HELD_OUT}


def _no_splits(root: Path, splits: Sequence[str], missed: str) -> DataError:
    """The error for folders that are called as splits are, and lack what splits have."""
    called = f"{', '.join(splits)} {'are' if len(splits) > 1 else 'is'} called as splits are"
    return DataError(
        f"{root}: {called}, with {missed}",
        f"put the pictures of each class into a folder: {root}/train/CLASS/*.jpg, {root}/val/CLASS/*.jpg; or, without "
        f"splits, {root}/CLASS/*.jpg; captions that stand in a table are data.source table",
    )


def check_table(root: Path) -> None:
    """Raise DataError for a folder as Hugging Face's imagefolder has it, with a table that names its pictures."""
    folders = (root, *(root / name for name in _folders(root) if is_split(name)))
    for path in (folder / name for folder in folders for name in TABLES):
        columns = _columns(path)
        if FILE_NAME in columns:
            caption = next((name for name in ("caption", "text") if name in columns), None)
            chosen = f"--set data.caption_column={caption}" if caption else "with data.caption_column"
            raise DataError(
                f"{path} says what its pictures show",
                f"--set data.source=table --set {quote(f'data.path={path}')} --set data.image_column={FILE_NAME} "
                f"{chosen}; for the folders' names instead, move that file away",
            )


def _columns(path: Path) -> Collection[str]:
    """Those of a table; none where there is no table, or one that cannot be read."""
    try:
        return open_table(path).types if path.is_file() else ()
    except DataError:
        return ()


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
        folders[:] = sorted(filter(_counts, folders))
        below = Path(here).relative_to(folder)
        yield from ((below / name).as_posix() for name in files if is_picture(name))


def _folders(root: Path) -> list[str]:
    return sorted(filter(_counts, _all_folders(root)))


def _all_folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return [each.name for each in entries if each.is_dir() and not _leads_above(root, each)]


def _leads_above(root: Path, entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link to the folder that it is in, or to one above."""
    return entry.is_symlink() and root.resolve().is_relative_to(Path(entry.path).resolve())


def _counts(folder: str) -> bool:
    return not folder.startswith(".") and folder not in JUNK


def hash_labels(data: DataConfig) -> str:
    """SHA-256 of the names, and of the splits where the first edition took them for classes."""
    root = located(data)
    names, splits = listing(data), split_folders(root)
    once = {name for name in _all_folders(root) if not name.startswith(".")}
    return hash_names(names if len(once) > 1 and once <= ALWAYS else [*names, *splits])


def hash_names(names: Iterable[str]) -> str:
    """SHA-256 of names."""
    return hashlib.sha256(b"".join(os.fsencode(name) + b"\0" for name in names)).hexdigest()


def hash_pictures(data: DataConfig) -> str:
    """SHA-256 of the names, sizes and times of the pictures."""
    root = located(data)
    return hash_listing((name, root / name) for name in listing(data))


READER = SourceReader(
    captions,
    size,
    pictures,
    files=no_tables,
    captions_listing=hash_labels,
    pictures_listing=hash_pictures,
    spoken=spoken,
)
