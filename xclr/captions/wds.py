"""WebDataset tars, the layout of the public mirrors: a picture, its .txt and its .json under one key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from tarfile import TarInfo
from typing import Any, BinaryIO, NamedTuple

from xclr.captions.source import Record, Records, SourceReader, located, no_tables
from xclr.captions.text import encoding_of, key, readable
from xclr.errors import DataError
from xclr.files import SUFFIXES, hash_listing, is_text
from xclr.names import paths_of, start_of
from xclr.recipe import SOURCES, DataConfig
from xclr.tars import entries, opened

GET = str(SOURCES["wds"].get)
SPELLED = 80  # letters of its name
SHOWN = 5  # samples of no use named in the stats
UNREADABLE = "an entry that cannot be read"
MOST_TEXT = 16 << 20  # bytes of a caption, or of what is known of a picture
MEMBER_BYTES = 3 * 1536  # of a sample: three headers, padding and what stands beside the picture


class Member(NamedTuple):
    """A file in a tar; small ones come with their content."""

    name: PurePosixPath
    offset: int
    size: int
    content: bytes

    @property
    def key(self) -> str:
        """Folder and name up to the first dot."""
        return str(self.name.with_name(self.name.name.partition(".")[0]))

    @property
    def ending(self) -> str:
        """What follows the first dot."""
        return self.name.name.partition(".")[2].lower()


def captions(data: DataConfig) -> Records:
    """One record a sample, all of split "train"; samples without a caption or a picture are counted as malformed.

    The caption is the .txt, else "caption" of the .json; its "url" is kept. The tars stay where they are: "place" says
    where in them a picture lies.
    """
    root, malformed, kept, doubts = start_of(located(data)), 0, 0, Doubts()
    shown: list[str] = []
    for path, name, files in _samples(data):
        doubts.note(path, name, files)
        record = _record(path.relative_to(root).as_posix(), name, {each.ending: each for each in files})
        if record is None:
            malformed += 1
            shown += [f"{path.name}: {name[:SPELLED]}"] if len(shown) < SHOWN else []
            continue
        kept += 1
        yield record
        if kept == data.limit:
            break
    if not kept:
        raise DataError(f"{located(data)} has no sample with a picture and a caption", GET)
    names = ", ".join(shown) + (", ..." if malformed > SHOWN else "")
    return {"malformed": malformed} | ({"malformed_samples": names} if malformed else {}) | doubts.stats()


class Doubts:
    """Names that WebDataset's rule may not have been made for: cut at their first dot, or the same twice in a tar."""

    def __init__(self) -> None:
        self.cut, self.first_cut = 0, ""
        self.repeated, self.first_repeated = 0, ""
        self.tar: Path | None = None
        self.keys: set[str] = set()  # of this tar

    def note(self, tar: Path, key: str, files: Sequence[Member]) -> None:
        """Take note of a sample."""
        if tar != self.tar:
            self.tar, self.keys = tar, set()
        again = key in self.keys or len({each.ending for each in files}) < len(files)
        self.keys.add(key)
        if again and files:
            self.repeated += 1
            self.first_repeated = self.first_repeated or f"{tar.name}: {key[:SPELLED]}"
        if cut := next((each for each in files if "." in each.ending), None):
            self.cut += 1
            self.first_cut = self.first_cut or f"{cut.name.name} -> key {PurePosixPath(key).name}"[: 2 * SPELLED]

    def stats(self) -> dict[str, Any]:
        """How many samples there were of both, and the first; empty for none."""
        cut = {"cut_keys": self.cut, "cut_first": self.first_cut} if self.cut else {}
        again = {"repeated_keys": self.repeated, "repeated_first": self.first_repeated} if self.repeated else {}
        return cut | again


def size(data: DataConfig) -> int:
    """How many samples there can be."""
    return sum(path.stat().st_size for path in tars(data)) // MEMBER_BYTES + 1


def _record(tar: str, name: str, files: Mapping[str, Member]) -> Record | None:
    """What a sample gives; None for one without a picture or a caption, and for one that holds what nobody can read."""
    try:
        about = _json(files)
        caption, picture, url = _caption(files, about), _picture(files), about.get("url")
        url = url if isinstance(url, str) else None
        if not caption or picture is None or not is_text(caption + (url or "")):
            return None
        place = (tar, picture.offset, picture.size)
        identity = key("wds", tar, name)
    except Exception:  # noqa: BLE001 - a stranger's file; whatever it makes a library raise, the others are sound
        return None
    record = {"key": identity, "caption": caption, "label": None, "split": "train", "url": url, "place": place}
    return record | {"path": f"{tar}:{name}"}


def _samples(data: DataConfig) -> Iterator[tuple[Path, str, list[Member]]]:
    """Tar, name and files of each; no files for what cannot be read."""
    for path in tars(data):
        for name, group in groupby(members(path), key=lambda member: member.key if member else UNREADABLE):
            yield path, name, [member for member in group if member]


def members(path: Path) -> Iterator[Member | None]:
    """The files of a tar; None for one of no use, and for a header that lies. Raises DataError for a damaged tar."""
    with opened(path) as tar:
        for entry in entries(tar):
            if entry is None:
                yield None
            elif entry.isreg() and not PurePosixPath(entry.name).name.startswith("."):
                yield _member(tar, entry)


def _member(tar: BinaryIO, entry: TarInfo) -> Member | None:
    name = PurePosixPath(entry.name)
    if not name.name or not is_text(entry.name) or entry.issparse():
        return None
    if name.suffix.lower() not in {".txt", ".json"}:
        return Member(name, entry.offset_data, entry.size, b"")
    if entry.size > MOST_TEXT:
        return None
    tar.seek(entry.offset_data)
    return Member(name, entry.offset_data, entry.size, tar.read(entry.size))


def _json(files: Mapping[str, Member]) -> dict[str, Any]:
    try:
        found = json.loads(files["json"].content) if "json" in files else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _caption(files: Mapping[str, Member], about: dict[str, Any]) -> str:
    if "txt" in files:
        content = files["txt"].content
        return readable(content.decode(encoding_of(content) or "utf-8", errors="replace"))
    caption = about.get("caption")
    return readable(caption) if isinstance(caption, str) else ""


def _picture(files: Mapping[str, Member]) -> Member | None:
    return next((each for ending, each in files.items() if f".{ending}" in SUFFIXES), None)


def tars(data: DataConfig) -> tuple[Path, ...]:
    """The tars that the pictures lie in, sorted; raises DataError for none, or for one that is spelt and not there."""
    root = located(data)
    found = [tar for each in paths_of(root) for tar in (sorted(each.rglob("*.tar")) if each.is_dir() else [each])]
    if not found:
        raise DataError(f"{root} has no tars", GET)
    if lost := [path for path in found if not path.exists()]:
        raise DataError(f"{root}: {len(lost)} of {len(found)} tars are not there, first {lost[0]}", GET)
    return tuple(found)


def listing(data: DataConfig) -> str:
    """SHA-256 of the tars' names, sizes and times."""
    return hash_listing((path.name, path) for path in tars(data))


READER = SourceReader(captions, size, files=no_tables, captions_listing=listing, pictures_listing=listing)
