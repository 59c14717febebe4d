"""The sources of captioned pictures: what recipes and plans know of each, and the module that reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from xclr.names import paths_of


class Source(NamedTuple):
    """A source; `module` of xclr.captions holds its READER."""

    module: str
    about: str
    path: str | None = None  # what data.path names; None for one that comes with xclr
    noun: str = "file"  # what is missed where nothing is at data.path
    is_there: Callable[[Path], bool] = Path.is_file
    get: str | None = None  # where people find it
    labels: Literal["always", "column", "never"] = "never"  # its classes; column: those of data.label_column
    by_url: bool = False  # data.url may say where its table is fetched from
    published: int | None = None  # captions, before duplicates are left out
    own: bool = False  # a person's own pictures: a look at them says how they are trained
    annotated: bool = False  # it has keywords and groups, so that its pictures can fill the suites' data sets
    drawn: bool = False  # its pictures are drawn, and what is true of them is known
    licence: str = ""  # of its pictures, where it is the same for all users of the source


def _is_spelt(path: Path) -> bool:
    """Whether there is something at a path, or at one that its braces or wildcards stand for."""
    return bool(paths_of(path))


ADDRESSED = "captions and addresses are Google's, free to use for any purpose; each picture is its owner's"
SOURCES: Mapping[str, Source] = {
    "emoji": Source(
        "emoji", "the embedded set", labels="always", annotated=True, get="install xclr again: the emoji come with it",
        licence="by their sets: Apache-2.0, CC-BY-4.0, CC-BY-SA-4.0 and MIT (NOTICE of xclr names them)",
    ),
    "scenes": Source(
        "scenes", "drawn scenes whose truth is known, as many as `pictures` says", labels="always", drawn=True,
        licence="none is needed: they are drawn",
    ),
    "table": Source(
        "table", "a Parquet, CSV, TSV or JSONL file, or several", noun="table", is_there=_is_spelt, labels="column",
        path="a Parquet, CSV, TSV or JSONL file, a folder of these, or a glob such as data/train-*.parquet", own=True,
    ),
    "folder": Source(
        "folder", "a folder of class folders", path="a folder with a folder of pictures for every class", noun="folder",
        is_there=Path.is_dir, labels="always", own=True,
    ),
    "cc3m": Source(
        "conceptual", "the published TSV of captions and addresses", path="the file Train_GCC-training.tsv",
        noun="cc3m file", by_url=True, published=3_318_333, licence=ADDRESSED,
        get="get Train_GCC-training.tsv (caption TAB url, no header) by the form on Google's Conceptual Captions page",
    ),
    "cc12m": Source(
        "conceptual", "the published TSV of addresses and captions", path="the file cc12m.tsv",
        noun="cc12m file", by_url=True, published=12_423_374, licence=ADDRESSED,
        get="get cc12m.tsv (url TAB caption, no header) from the page of Google's conceptual-12m",
    ),
    "wds": Source(
        "wds", "WebDataset tars", path="a folder of tars, one, or several: shard-{00000..00012}.tar, shard-*.tar",
        noun="tars", is_there=_is_spelt, own=True,
        get="put the mirror's *.tar there, such as pixparse/cc12m-wds",
    ),
    "imagenet": Source(
        "imagenet", "folders, or its official tars", noun="folder", is_there=Path.is_dir, labels="always",
        path="Kaggle's folder, one that holds train, val and LOC_synset_mapping.txt, or one with the official tars",
        get="get ILSVRC 2012 as Kaggle packs it: ILSVRC/Data/CLS-LOC/{train,val}, LOC_synset_mapping.txt and "
        "LOC_val_solution.csv, or as its page does: ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar, "
        "ILSVRC2012_devkit_t12.tar.gz",
        licence="ImageNet's terms of access: research and education that are not commercial",
    ),
}  # fmt: skip
