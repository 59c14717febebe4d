"""What every source of captioned pictures gives."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from xclr.errors import DataError
from xclr.files import Picture
from xclr.recipe import SOURCES, DataConfig, Recipe
from xclr.synsets import SYNSET

Record = dict[str, Any]  # key, caption (normalised), label (name of the class or None), split; url; place: file below
# data.path, offset and size of the picture; id and path: what people call the row and its picture; emoji annotations
Records = Generator[Record, None, dict[str, Any]]  # streamed; the return value joins the stage's stats
SEVERAL = "several "  # in the listing of captions of which some are of one picture


class Class(NamedTuple):
    """What a label stands for."""

    name: str
    synset: str | None


def plain_classes(data: DataConfig, labels: Sequence[str]) -> list[Class]:
    """Labels whose words are joined by underscores, unless two would be alike; one that is a synset is one."""
    spoken = [label.replace("_", " ").strip() for label in labels]
    times = Counter(spoken)
    return [
        Class(name if times[name] == 1 else label, label if SYNSET.fullmatch(label) else None)
        for name, label in zip(spoken, labels, strict=True)
    ]


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


def located(data: DataConfig) -> Path:
    """The table or folder that data.path names; raises DataError when it is not there, or the other of the two."""
    if data.path is None:
        fetch = "run its recipe with --until captions, which fetches it"
        raise DataError(f"the table of {data.source} has not been fetched yet", fetch)
    source = SOURCES[data.source]
    if not source.is_there(data.path):
        raise DataError(f"no {source.noun} at {data.path}", remedy_of(data.source, f"set data.path to {source.path}"))
    return data.path


def require(path: Path, source: str) -> Path:
    """The path; raises DataError when nothing is there."""
    if not path.exists():
        raise DataError(f"{path} is missing", remedy_of(source, "put it there"))
    return path


def remedy_of(source: str, otherwise: str) -> str:
    """What to do about an absent input."""
    get, path = SOURCES[source].get, SOURCES[source].path
    return otherwise if get is None else get + ", and say where it is: --set data.path=..." * (path is not None)


def located_file(data: DataConfig) -> tuple[Path, ...]:
    """The one table that data.path names."""
    return (located(data),)


def no_tables(data: DataConfig) -> tuple[Path, ...]:
    """No table names the captions; raises DataError where nothing is at data.path."""
    located(data)
    return ()


@dataclass(frozen=True)
class SourceReader:
    """What the module of a source does: captions and pictures in one order of rows, and what they depend on."""

    captions: Callable[[DataConfig], Records]
    size: Callable[[DataConfig], int]  # rows there can be at most, for the progress bar
    pictures: Callable[[DataConfig], Iterator[Picture]] | None = None  # where records have neither url nor place
    classes: Callable[[DataConfig, Sequence[str]], list[Class]] = plain_classes  # of labels, in their order
    unique_urls: bool = False  # a row whose address stood before is left out: its picture would be its own negative
    spoken: Callable[[str], str] = lambda name: name  # the name of a class as captions have it
    several: bool = False  # its pictures may have several captions, each a row: records say which picture they show
    files: Callable[[DataConfig], tuple[Path, ...]] = located_file  # whose content names the captions
    check: Callable[[DataConfig], object] = lambda data: None  # raises DataError for what is seen in a moment
    tell: Callable[[DataConfig], Iterable[str]] = lambda data: ()  # lines that say what was chosen for the recipe
    captions_listing: Callable[[DataConfig], str | None] = lambda data: None  # hash of what else names the captions
    pictures_listing: Callable[[DataConfig], str | None] = lambda data: None  # hash of the files with pictures


def most_rows(data: DataConfig) -> int:
    """How many captions a source has at most."""
    rows = SOURCES[data.source].published or reader_of(data.source).size(data)
    return min(rows, data.limit or rows)


def reader_of(source: str) -> SourceReader:
    """The reader of a source, of the module that its declaration names."""
    reader: SourceReader = import_module(f"xclr.captions.{SOURCES[source].module}").READER
    return reader
