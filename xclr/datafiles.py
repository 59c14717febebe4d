"""What a data source names outside the store: its files, checked and named before any work."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from xclr import tablefile
from xclr.errors import DataError
from xclr.recipe import RECIPES, DataConfig, Recipe
from xclr.tablefile import Table

EMOJI_FILES = tuple(RECIPES / "data" / f"emoji48-{part}.parquet" for part in ("permissive", "openmoji"))
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
SYNSETS = "LOC_synset_mapping.txt"
ARCHIVES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz")
TRAIN, HELD_OUT = "train", ("val", "test")  # folders that are splits when they are all there is
SHOWN = 3  # missing files named in a message
PROBE_LINES = 100  # of a TSV, looked at before any work
GET = {
    "emoji": "install xclr again: the emoji come with it",
    "cc3m": "get Train_GCC-training.tsv (caption TAB url, no header) by the form on Google's Conceptual Captions page",
    "cc12m": "get cc12m.tsv (url TAB caption, no header) from the page of Google's conceptual-12m",
    "imagenet": f"get ILSVRC 2012 as Kaggle packs it: train/<wnid>/*.JPEG, val/<wnid>/*.JPEG and {SYNSETS}, or as its "
    f"page does: {', '.join(ARCHIVES)}",
    "wds": "put the mirror's *.tar there, such as pixparse/cc12m-wds",
}


class Inside(NamedTuple):
    """A picture that lies in a file, uncompressed."""

    path: Path
    offset: int
    size: int


Picture = bytes | Path | str | Inside | None  # encoded, an absolute file, an http(s) address, part of a file, or none


def fetched(url: str, home: Path) -> Path:
    """Where the file at an address is or will be: HOME/sources/<hash of the address>/<its name>."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", Path(urlsplit(url).path).name).lstrip(".") or "table"
    return home / "sources" / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def is_fetched(data: DataConfig) -> bool:
    """True when the table comes from data.url, because data.path names none that is there."""
    return data.url is not None and (data.path is None or not data.path.exists())


def placed(recipe: Recipe, home: Path) -> Recipe:
    """A recipe whose data.path is the fetched table where only data.url names one; None before it is fetched."""
    if not is_fetched(recipe.data):
        return recipe
    path = fetched(str(recipe.data.url), home)
    data = recipe.data.model_copy(update={"path": path if path.exists() else None})
    return recipe.model_copy(update={"data": data})


def source_files(data: DataConfig) -> tuple[Path, ...]:
    """The files whose content names the captions: tables, a list of classes; raises DataError when one is missing."""
    if data.source == "emoji":
        return tuple(_needed(path, "emoji") for path in EMOJI_FILES)
    path = located(data)
    if data.source == "imagenet" and archives(data):
        return (_needed(path / ARCHIVES[-1], "imagenet"),)
    if data.source == "imagenet":
        return (_needed(path / SYNSETS, "imagenet"),)
    return () if data.source in {"folder", "wds"} else (path,)


def located(data: DataConfig) -> Path:
    """The table or folder that data.path names; raises DataError when it is not there, or the other of the two."""
    if data.path is None:
        raise DataError(f"the table of {data.source} has not been fetched yet", "xclr run RECIPE --until captions")
    if data.source in {"folder", "imagenet"}:
        if not data.path.is_dir():
            raise DataError(
                f"no folder at {data.path}", _get(data.source, "set data.path to a folder of class folders")
            )
    elif data.source == "wds":
        _needed(data.path, "wds")
    elif not data.path.is_file():
        what = "no table" if data.source == "table" else f"no {data.source} file"
        raise DataError(f"{what} at {data.path}", _get(data.source, "set data.path to a table that exists"))
    return data.path


def check(data: DataConfig) -> None:
    """Raise DataError for what can be known in a moment: columns that are not there, columns in the other order."""
    if data.source == "table":
        table_of(data)
    elif data.source in ORDER:
        _check_order(data)


def captions_listing(data: DataConfig) -> str | None:
    """SHA-256 of the sorted names below a folder, or of the tars' names, sizes and times; None for tables."""
    if packed := tars(data):
        return _listing_hash((path.name, path) for path in packed)
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
        return _listing_hash((path.name, path) for path in packed)
    if data.source in {"folder", "imagenet"}:
        root = located(data)
        return _listing_hash((name, root / name) for name in listing(data))
    if data.source == "table" and (table := table_of(data)).types[data.image_column] == "text":
        return _referenced(data, table)
    return None


def tars(data: DataConfig) -> tuple[Path, ...]:
    """The tars that a source's pictures lie in, sorted: of wds all, of imagenet those of train and val if it has them.

    Raises DataError for a folder without tars.
    """
    if data.source == "imagenet":
        return archives(data)
    if data.source != "wds":
        return ()
    root = located(data)
    found = sorted(root.rglob("*.tar")) if root.is_dir() else [root]
    if not found:
        raise DataError(f"{root} has no tars", GET["wds"])
    return tuple(found)


def archives(data: DataConfig) -> tuple[Path, ...]:
    """ImageNet's official tars of train and val; none where the folders are there instead."""
    root = located(data)
    if not (root / ARCHIVES[0]).exists() or (root / TRAIN).is_dir():
        return ()
    return tuple(_needed(root / name, "imagenet") for name in ARCHIVES[:2])


def table_of(data: DataConfig) -> Table:
    """The opened table of a data source; raises DataError for columns that are not there or of no use."""
    table = tablefile.open_table(located(data))
    for field in ("caption_column", "image_column", "label_column"):
        column = getattr(data, field)
        if column is not None and column not in table.types:
            raise DataError(
                f"{table.path} has no column {column!r}",
                f"set data.{field} to one of: " + ", ".join(name for name in table.types if name.strip()),
            )
    for column, holds in ((data.caption_column, "text"), (data.image_column, "the pictures' bytes, paths or URLs")):
        if table.types[column] not in {"text", "bytes"}:
            raise DataError(f"{table.path}: column {column!r} holds {table.types[column]}", f"it must hold {holds}")
    return table


def references(data: DataConfig, table: Table) -> Iterator[tuple[int, Picture]]:
    """The place of each row and its picture, streamed; raises DataError for a value that is none of the four."""
    folder = table.path.absolute().parent
    for place, (value,) in tablefile.rows(table, [data.image_column], data.limit):
        yield place, reference(value, folder, lambda place=place: f"{table.path}: {table.where([place])}")  # type: ignore[misc]


def reference(value: object, folder: Path, where: Callable[[], str]) -> Picture:
    """A table's value as a picture: bytes, or text that is an address or a path starting at `folder`."""
    if value is None or isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not is_text(value):
        raise DataError(
            f"{where()}: the picture is {value!r}, not text", "give a path that starts at the table, a URL, or null"
        )
    text = value.strip()
    if not text:
        return None
    return text if is_url(text) else folder / text


def is_url(text: str) -> bool:
    """True for an http(s) address."""
    return text[:8].lower().startswith(("http://", "https://"))


def listing(data: DataConfig) -> list[str]:
    """The pictures of a folder source as sorted relative names; with a limit those whose share comes first.

    Raises DataError when the folder has no class folders or no pictures.
    """
    root = located(data)
    if data.source == "imagenet":
        names = [f"{part}/{name}" for part in (TRAIN, HELD_OUT[0]) for name in _of_classes(root / part, "imagenet")]
    elif parts := split_folders(root):
        names = [f"{part}/{name}" for part in parts for name in _of_classes(root / part, "folder")]
    else:
        names = _of_classes(root, "folder")
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


def columns_of(line: bytes, source: str) -> tuple[str, str] | None:
    """Caption and address of a line of Conceptual Captions; None for a line that does not hold just these."""
    try:
        parts = line.decode("utf-8-sig").rstrip("\r\n").split("\t")
    except UnicodeDecodeError:
        return None
    if len(parts) != 2:
        return None
    caption, url = (parts[index] for index in ORDER[source])
    return (caption, url.strip()) if caption.strip() and is_url(url.strip()) else None


ORDER: Mapping[str, tuple[int, int]] = {"cc3m": (0, 1), "cc12m": (1, 0)}  # columns of caption and address


def _check_order(data: DataConfig) -> None:
    path = located(data)
    lines = [line for line, _ in zip(tablefile.raw_lines(path), range(PROBE_LINES), strict=False)]
    if not any(columns_of(line, data.source) for line in lines):
        other = next(name for name in ORDER if name != data.source)
        turned = any(columns_of(line, other) for line in lines)
        raise DataError(
            f"{path}: none of the first {len(lines)} lines is one of {data.source}"
            + (f"; they are in the order of {other}" if turned else ""),
            f"set data.source to {other}" if turned else GET[data.source],
        )


def _referenced(data: DataConfig, table: Table) -> str | None:
    """Hash the files that a table names, or say which are not there."""
    missing: list[tuple[int, Path]] = []
    found, files, names = hashlib.sha256(), 0, table.path.absolute().parent
    for place, picture in references(data, table):
        if isinstance(picture, Path):
            files += 1
            entry = _entry(os.path.relpath(picture, names), picture)
            if entry is None:
                missing.append((place, picture))
            else:
                found.update(entry)
    if missing:
        first = "; ".join(f"{table.where([place])}: {path}" for place, path in missing[:SHOWN])
        raise DataError(
            f"{table.path}: {len(missing)} of {files} picture files are not there ({first}"
            + ("; ...)" if len(missing) > SHOWN else ")"),
            f"paths in column {data.image_column!r} start at {names}; addresses start with http:// or https://",
        )
    return found.hexdigest() if files else None


def _listing_hash(files: Iterator[tuple[str, Path]]) -> str:
    found = hashlib.sha256()
    for name, path in files:
        found.update(_entry(name, path) or b"")
    return found.hexdigest()


def _entry(name: str, path: Path) -> bytes | None:
    """Name, size and time of change of a file; None when there is none."""
    try:
        seen = path.stat()
    except (OSError, ValueError):  # a ValueError is a name with a zero byte
        return None
    if not stat.S_ISREG(seen.st_mode):
        return None
    return os.fsencode(name) + f"\0{seen.st_size}\0{seen.st_mtime_ns}\n".encode()


def _of_classes(root: Path, source: str) -> list[str]:
    """Pictures below the class folders of `root`, as names relative to it; raises DataError when there are none."""
    classes = _folders(_needed(root, source))
    if not classes:
        raise DataError(f"{root} has no class folders", _get(source, "put the pictures of each class into a folder"))
    names = [f"{each}/{name}" for each in classes for name in _pictures(root / each)]
    if not names:
        endings = ", ".join(sorted(SUFFIXES))
        raise DataError(f"the class folders of {root} hold no pictures", f"pictures are files that end in {endings}")
    return names


def _pictures(folder: Path) -> Iterator[str]:
    for here, folders, files in os.walk(folder):  # which does not follow links to folders
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(here).relative_to(folder)
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield (below / name).as_posix()


def is_text(name: str) -> bool:
    """False for a string with halves of characters, as file names and JSON may hold."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _folders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(each.name for each in entries if each.is_dir() and not each.name.startswith("."))


def _needed(path: Path, source: str) -> Path:
    if not path.exists():
        raise DataError(f"{path} is missing", _get(source, "put it there"))
    return path


def _get(source: str, otherwise: str) -> str:
    """What to do about an absent input."""
    where = "" if source == "emoji" else ", and say where it is: --set data.path=..."
    return GET[source] + where if source in GET else otherwise
