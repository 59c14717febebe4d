"""WebDataset tars, the layout of the public mirrors: a picture, its .txt and its .json under one key."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from xclr.captions.source import Records, SourceReader, located, no_tables
from xclr.captions.text import key, normalise
from xclr.errors import DataError
from xclr.files import SUFFIXES, hash_listing
from xclr.recipe import SOURCES, DataConfig

GET = str(SOURCES["wds"].get)
SHOWN = 5  # samples of no use named in the stats
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
    root = located(data) if located(data).is_dir() else located(data).parent
    malformed, kept = 0, 0
    shown: list[str] = []
    for path, name, files in _samples(data):
        about = _json(files)
        caption, picture = _caption(files, about), _picture(files)
        if not caption or picture is None:
            malformed += 1
            shown += [f"{path.name}: {name}"] if len(shown) < SHOWN else []
            continue
        kept += 1
        url = about.get("url")
        yield {
            "key": key("wds", path.relative_to(root).as_posix(), name),
            "caption": caption,
            "label": None,
            "split": "train",
            "url": url if isinstance(url, str) else None,
            "place": (path.relative_to(root).as_posix(), picture.offset, picture.size),
        }
        if kept == data.limit:
            break
    if not kept:
        raise DataError(f"{located(data)} has no sample with a picture and a caption", GET)
    names = ", ".join(shown) + (", ..." if malformed > SHOWN else "")
    return {"malformed": malformed} | ({"malformed_samples": names} if malformed else {})


def size(data: DataConfig) -> int:
    """How many samples there can be."""
    return sum(path.stat().st_size for path in tars(data)) // MEMBER_BYTES + 1


def _samples(data: DataConfig) -> Iterator[tuple[Path, str, dict[str, Member]]]:
    for path in tars(data):
        for name, group in groupby(_members(path), key=lambda member: member.key):
            yield path, name, {member.ending: member for member in group}


def _members(path: Path) -> Iterator[Member]:
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                name = PurePosixPath(entry.name)
                if entry.isreg() and not name.name.startswith("."):
                    small = tar.extractfile(entry) if name.suffix.lower() in {".txt", ".json"} else None
                    yield Member(name, entry.offset_data, entry.size, small.read() if small else b"")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read as a tar: {error}", "fetch it again; it must not be compressed"
        ) from error


def _json(files: dict[str, Member]) -> dict[str, Any]:
    try:
        found = json.loads(files["json"].content) if "json" in files else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _caption(files: dict[str, Member], about: dict[str, Any]) -> str:
    if "txt" in files:
        return normalise(files["txt"].content.decode("utf-8", errors="replace"))
    caption = about.get("caption")
    return normalise(caption) if isinstance(caption, str) else ""


def _picture(files: dict[str, Member]) -> Member | None:
    return next((each for ending, each in files.items() if f".{ending}" in SUFFIXES), None)


def tars(data: DataConfig) -> tuple[Path, ...]:
    """The tars that the pictures lie in, sorted; raises DataError for a folder without any."""
    root = located(data)
    found = sorted(root.rglob("*.tar")) if root.is_dir() else [root]
    if not found:
        raise DataError(f"{root} has no tars", GET)
    return tuple(found)


def listing(data: DataConfig) -> str:
    """SHA-256 of the tars' names, sizes and times."""
    return hash_listing((path.name, path) for path in tars(data))


READER = SourceReader(captions, size, files=no_tables, captions_listing=listing, pictures_listing=listing)
