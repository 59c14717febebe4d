"""What every source of captioned pictures gives."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from xclr.errors import DataError
from xclr.files import Picture
from xclr.recipe import DataConfig, Recipe
from xclr.synsets import SYNSET, SYNSETS

ARCHIVES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz")

Record = dict[str, Any]  # key, caption (normalised), label (name of the class or None), split; url; place: file below
# data.path, offset and size of the picture; emoji annotations
Records = Generator[Record, None, dict[str, Any]]  # streamed; the return value joins the stage's stats


class Class(NamedTuple):
    """What a label stands for."""

    name: str
    synset: str | None


def plain_classes(data: DataConfig, labels: Sequence[str]) -> list[Class]:
    """Labels whose words are joined by underscores; one that is a synset is one."""
    return [Class(label.replace("_", " ").strip(), label if SYNSET.fullmatch(label) else None) for label in labels]


class Source(NamedTuple):
    """Where captioned pictures come from; captions and pictures use one order of rows."""

    captions: Callable[[DataConfig], Records]
    size: Callable[[DataConfig], int]  # rows there can be at most, for the progress bar
    pictures: Callable[[DataConfig], Iterator[Picture]] | None = None  # where records have neither url nor place
    classes: Callable[[DataConfig, Sequence[str]], list[Class]] = plain_classes  # of labels, in their order
    unique_urls: bool = False  # a row whose address stood before is left out: its picture would be its own negative


GET = {
    "emoji": "install xclr again: the emoji come with it",
    "cc3m": "get Train_GCC-training.tsv (caption TAB url, no header) by the form on Google's Conceptual Captions page",
    "cc12m": "get cc12m.tsv (url TAB caption, no header) from the page of Google's conceptual-12m",
    "imagenet": f"get ILSVRC 2012 as Kaggle packs it: train/<wnid>/*.JPEG, val/<wnid>/*.JPEG and {SYNSETS}, or as its "
    f"page does: {', '.join(ARCHIVES)}",
    "wds": "put the mirror's *.tar there, such as pixparse/cc12m-wds",
}


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
        raise DataError(f"the table of {data.source} has not been fetched yet", "xclr run RECIPE --until captions")
    if data.source in {"folder", "imagenet"}:
        if not data.path.is_dir():
            raise DataError(
                f"no folder at {data.path}", remedy_of(data.source, "set data.path to a folder of class folders")
            )
    elif data.source == "wds":
        require(data.path, "wds")
    elif not data.path.is_file():
        what = "no table" if data.source == "table" else f"no {data.source} file"
        raise DataError(f"{what} at {data.path}", remedy_of(data.source, "set data.path to a table that exists"))
    return data.path


def require(path: Path, source: str) -> Path:
    """The path; raises DataError when nothing is there."""
    if not path.exists():
        raise DataError(f"{path} is missing", remedy_of(source, "put it there"))
    return path


def remedy_of(source: str, otherwise: str) -> str:
    """What to do about an absent input."""
    where = "" if source == "emoji" else ", and say where it is: --set data.path=..."
    return GET[source] + where if source in GET else otherwise
