"""The files of a data set: a folder, or an uncompressed tar of one, for clusters that prefer one file to a million."""

from __future__ import annotations

import os
import stat
import tarfile
import weakref
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from posixpath import normpath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xclr.errors import DataError
from xclr.files import is_text
from xclr.tars import LIES, entries, opened

AGAIN = "copy or unpack it again"
PACK = "pack the files themselves: tar --dereference -cf X.tar -C FOLDER ."


class Tree(ABC):
    """The files of a data set by names that start at `root`, with / between folders; hidden ones do not count."""

    root: Path

    @staticmethod
    def open(path: Path) -> Tree:
        """The tree of a folder, of an uncompressed tar of one, or of a single JSON file.

        A tar is read through once a process, header by header, and must end as tars do: a copy that was cut short is
        refused. Raises DataError for a path that is missing, cannot be read or is none of the three.
        """
        try:
            kind = path.stat().st_mode
        except OSError as error:
            raise _unreadable(path, error) from error
        if stat.S_ISDIR(kind):
            return _Folder(path)
        if not stat.S_ISREG(kind):
            raise _no_file(path)
        return _Single(path) if path.suffix.lower() == ".json" else _Tar(path)

    @abstractmethod
    def folders(self, below: str = "") -> list[str]:
        """The sorted names of the folders right below one, links to folders among them.

        Raises DataError where `below` is no folder or a name is not UTF-8.
        """

    @abstractmethod
    def files(self, below: str = "") -> list[str]:
        """The sorted names, from the root, of all files below a folder; links to folders further down are not followed.

        Raises DataError where `below` is no folder or a name is not UTF-8.
        """

    @abstractmethod
    def exists(self, name: str) -> bool:
        """True where there is such a file or folder."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A file's content; threads may read at once. Raises DataError naming a file that is missing or cut short."""

    @abstractmethod
    def entry(self, name: str) -> bytes:
        """Name, size and time of change of a file (in a tar: of the tar), for hashing; raises DataError without one."""


class _Folder(Tree):
    def __init__(self, root: Path) -> None:
        self.root = root

    def folders(self, below: str = "") -> list[str]:
        path = self.root / below
        try:
            with os.scandir(path) as entries:
                return _utf8(path, (each.name for each in entries if each.name[0] != "." and each.is_dir()))
        except OSError as error:
            raise _unreadable(path, error) from error

    def files(self, below: str = "") -> list[str]:
        try:
            return _utf8(self.root, _below(f"{self.root / below}", f"{below}/" if below else ""))
        except OSError as error:
            raise _unreadable(self.root / below, error) from error

    def exists(self, name: str) -> bool:
        try:
            return (self.root / name).exists()
        except OSError as error:
            raise _unreadable(self.root / name, error) from error

    def read(self, name: str) -> bytes:
        path = self.root / name
        try:
            if not path.is_file() and path.exists():  # a pipe would be waited for, for ever
                raise _no_file(path)
            return path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from error

    def entry(self, name: str) -> bytes:
        return _entry(name, f"{self.root}/{name}")


class _Single(Tree):
    def __init__(self, root: Path) -> None:
        self.root = root

    def folders(self, below: str = "") -> list[str]:
        self._check(not below, below)
        return []

    def files(self, below: str = "") -> list[str]:
        self._check(not below, below)
        return _utf8(self.root.parent, [self.root.name])

    def exists(self, name: str) -> bool:
        return name == self.root.name

    def read(self, name: str) -> bytes:
        self._check(self.exists(name), name)
        return _Folder(self.root.parent).read(name)

    def entry(self, name: str) -> bytes:
        self._check(self.exists(name), name)
        return _entry(name, f"{self.root}")

    def _check(self, there: bool, name: str) -> None:
        if not there:
            raise DataError(f"{self.root} is a file: there is no {name} in it", "give the folder that holds it")


class _Index(NamedTuple):
    """A tar's files, sorted by name, the place and size of each, and the folders right below each folder."""

    names: list[str]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    folders: Mapping[str, list[str]]


class _Tar(Tree):
    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            self._file = os.open(root, os.O_RDONLY)
        except OSError as error:
            raise _unreadable(root, error) from error
        weakref.finalize(self, os.close, self._file)
        seen = os.fstat(self._file)
        self._changed = seen.st_mtime_ns
        self._index = _indexed(root, seen.st_size, seen.st_mtime_ns)

    def folders(self, below: str = "") -> list[str]:
        if below not in self._index.folders:
            raise self._missing(below)
        return _utf8(self.root / below, self._index.folders[below])

    def files(self, below: str = "") -> list[str]:
        if below not in self._index.folders:
            raise self._missing(below)
        names = self._index.names
        if below:  # "0" comes after "/"
            names = names[bisect_left(names, f"{below}/") : bisect_left(names, f"{below}0")]
        return _utf8(self.root, names)

    def exists(self, name: str) -> bool:
        return name in self._index.folders or self._row(name) is not None

    def read(self, name: str) -> bytes:
        row = self._row(name)
        if row is None:
            raise self._missing(name)
        size = int(self._index.sizes[row])
        try:
            data = os.pread(self._file, size, int(self._index.offsets[row]))
        except OSError as error:
            raise _unreadable(self.root / name, error) from error
        if len(data) != size:
            raise DataError(f"{self.root / name} has {len(data)} of {size} bytes", AGAIN)
        return data

    def entry(self, name: str) -> bytes:
        row = self._row(name)
        if row is None:
            raise self._missing(name)
        return _line(name, int(self._index.sizes[row]), self._changed)

    def _row(self, name: str) -> int | None:
        row = bisect_left(self._index.names, name)
        return row if row < len(self._index.names) and self._index.names[row] == name else None

    def _missing(self, name: str) -> DataError:
        return DataError(f"{self.root / name} is missing", AGAIN)


def _below(path: str, prefix: str) -> Iterator[str]:
    """Every file below a folder; what is no folder counts as one, so that a broken link is found when it is read."""
    with os.scandir(path) as entries:
        for each in entries:
            if each.name[0] == ".":
                continue
            if each.is_dir(follow_symlinks=False):
                yield from _below(each.path, f"{prefix}{each.name}/")
            elif not each.is_dir():
                yield prefix + each.name


def _entry(name: str, path: str) -> bytes:
    try:
        seen = os.stat(path)  # noqa: PTH116 - a Path for each of 1.3 million files takes 4 s more
    except OSError as error:
        raise _unreadable(Path(path), error) from error
    if not stat.S_ISREG(seen.st_mode):
        raise _no_file(Path(path))
    return _line(name, seen.st_size, seen.st_mtime_ns)


def _line(name: str, size: int, changed_ns: int) -> bytes:
    return os.fsencode(name) + f"\0{size}\0{changed_ns}\n".encode()


def _utf8(where: Path, names: Iterable[str]) -> list[str]:
    """Sorted names; raises DataError for one that is not UTF-8."""
    found = sorted(names)
    if broken := [name for name in found if not name.isascii() and not is_text(name)]:
        raise DataError(f"{where}: {len(broken)} file names are not UTF-8, first {broken[0]!r}", "rename these files")
    return found


def _no_file(path: Path) -> DataError:
    return DataError(f"{path} is no file", AGAIN)


def _unreadable(path: Path, error: OSError) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} is missing", AGAIN)
    return DataError(f"{path} cannot be read: {error.strerror}", "see who owns it and whether the disk is there")


@lru_cache(maxsize=4)
def _indexed(path: Path, size: int, changed_ns: int) -> _Index:
    """Where everything in a tar lies; size and time of change are there for the cache."""
    rows: dict[str, int] = {}
    offsets, sizes = array("q"), array("q")
    folders: dict[str, set[str]] = {"": set()}
    for each in _members(path):
        name = _plain(each.name)
        if _is_hidden(name):
            continue
        if each.isdir():
            _add_folder(folders, name)
            continue
        _add_folder(folders, name.rpartition("/")[0])
        if each.islnk() and _plain(each.linkname) in rows:
            rows[name] = rows[_plain(each.linkname)]
        elif each.isreg() and not each.issparse():
            rows[name] = len(offsets)  # of two files with one name the later one counts, as when a tar is unpacked
            offsets.append(each.offset_data)
            sizes.append(each.size)
        else:
            raise DataError(f"{path}: {each.name} is a link, a sparse file or a device", PACK)
    names = sorted(rows)
    order = np.fromiter((rows[name] for name in names), dtype=np.int64, count=len(names))
    start, length = (np.array(each, dtype=np.int64)[order] for each in (offsets, sizes))
    return _Index(names, start, length, {name: sorted(each) for name, each in folders.items()})


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    """The headers of a tar; raises DataError where it is none, is damaged, or lacks its end."""
    with opened(path) as tar:
        for each in entries(tar):
            if each is None:
                raise tarfile.ReadError(LIES)
            yield each


def _plain(name: str) -> str:
    return normpath(name).lstrip("/")


def _is_hidden(name: str) -> bool:
    return name[:1] == "." or "/." in name


def _add_folder(folders: dict[str, set[str]], name: str) -> None:
    """Note a folder and those that it lies in."""
    if name not in folders:
        over, _, last = name.rpartition("/")
        _add_folder(folders, over)
        folders[over].add(last)
        folders[name] = set()
