"""The published layouts of the data sets, filled with emoji: which picture is which file, and what lies beside them."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from xclr import schema
from xclr.artifact import Artifact
from xclr.captions.emoji import Groups, taxonomy
from xclr.errors import DataError
from xclr.evaluation.export.drawings import Draw, Scenery, bordered, plain, trained, variants
from xclr.evaluation.stages import ExportConfig
from xclr.images import usable_rows
from xclr.recipe import DataConfig
from xclr.store import Store

Ints = NDArray[np.int64]
FIRST_WNID = 90_000_000  # no synset of WordNet has such a number
OUTSIDE = "symbols"  # the group that is none of ImageNet-9's classes
UNNAMED, HAND = "other-", "hand-"  # subgroups without an equivalent; those that ObjectNet takes for one thing
UNSEEN = ("pictures", "concepts", "vendor")  # splits that are never trained on
PUNCTUATION = re.compile(r"[^\w'-]|_")


@dataclass(frozen=True, eq=False)
class Emoji:
    """What is known of each of N emoji, by row id; usable: the sorted rows whose pictures can be decoded."""

    usable: Ints
    split: NDArray[np.str_]
    captions: list[str]
    tags: list[list[str]]
    subgroup: Ints
    group: Ints
    names: Groups

    def of(self, *splits: str) -> Ints:
        """The usable rows of some splits, sorted."""
        return self.usable[np.isin(self.split[self.usable], splits)]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """ImageNet's classes, in order: the subgroups that have training pictures."""
        return tuple(self.names.subgroups[each] for each in np.unique(self.subgroup[self.of("train")]))

    @cached_property
    def validation(self) -> Ints:
        """ImageNet's validation pictures, whose classes have training pictures."""
        rows = self.of("pictures")
        return rows[np.isin(self.subgroup[rows], self.subgroup[self.of("train")])]

    @cached_property
    def group_of(self) -> Mapping[str, int]:
        """The group of each subgroup, by name."""
        pairs = set(zip(self.subgroup.tolist(), self.group.tolist(), strict=True))
        return {self.names.subgroups[subgroup]: group for subgroup, group in sorted(pairs)}

    def name(self, row: int) -> str:
        """The subgroup's name."""
        return self.names.subgroups[int(self.subgroup[row])]

    def wnid(self, row: int) -> str:
        """What stands for the subgroup's synset."""
        return f"n{FIRST_WNID + self.subgroup[row]}"


class Drawing(NamedTuple):
    """Pictures that are drawn in one way: row ids [n] and file names."""

    draw: Draw
    rows: Ints
    names: list[str]


class DataSet(NamedTuple):
    """A data set's files: pictures, and texts by name."""

    name: str
    drawings: tuple[Drawing, ...]
    texts: Mapping[str, str]

    @property
    def size(self) -> int:
        """Pictures."""
        return sum(len(each.rows) for each in self.drawings)


def read_emoji(captions: Artifact, images: Artifact) -> Emoji:
    """Read the captions' and images' artifacts; raises DataError for another source, or too few."""
    raw = Store.of(captions.path).manifest(captions).config["data"]
    if raw["source"] != "emoji":
        raise DataError(f"the pictures of {raw['source']} cannot be exported", "use data.source: emoji")
    table = schema.read(captions.path / "captions.parquet", schema.CAPTIONS, ["caption", "split"])
    notes = schema.read(captions.path / "annotations.parquet", schema.ANNOTATIONS)
    emoji = Emoji(
        usable=usable_rows(images.path),
        split=np.array(table["split"].to_pylist(), dtype=np.str_),
        captions=table["caption"].to_pylist(),
        tags=notes["tags"].to_pylist(),
        subgroup=_integers(notes["subgroup"]),
        group=_integers(notes["group"]),
        names=taxonomy(DataConfig.model_validate(raw)),
    )
    if not len(emoji.validation):
        raise DataError(
            f"of {len(emoji.split)} emoji with {len(emoji.usable)} pictures none is one to judge by",
            "--set data.limit=3000",
        )
    return emoji


def _integers(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column, dtype=np.int64)


def data_sets(emoji: Emoji, config: ExportConfig) -> tuple[DataSet, ...]:
    """The data sets that have pictures of their own; ImageNet-ReaL is about ImageNet's."""
    scenery = Scenery(torch.from_numpy(emoji.group), config.seed)
    return (
        imagenet(emoji, trained(scenery, config.background)),
        imagenet9(emoji, scenery),
        objectnet(emoji),
        mit_states(emoji),
    )


def imagenet(emoji: Emoji, draw: Draw) -> DataSet:
    """ILSVRC 2012 as Kaggle packs it, its classes the subgroups that have training pictures.

    LOC_synset_mapping.txt, train/<wnid>/<wnid>_<row>.JPEG, val/<wnid>/ILSVRC2012_val_<number>.JPEG; the validation
    pictures are numbered from 1 by row, not by folder.
    """
    train, val = emoji.of("train"), emoji.validation
    names = [f"train/{emoji.wnid(row)}/{emoji.wnid(row)}_{row}.JPEG" for row in train]
    numbered = enumerate(val, start=1)
    names += [f"val/{emoji.wnid(row)}/ILSVRC2012_val_{number:08d}.JPEG" for number, row in numbered]
    wnids = sorted({emoji.wnid(row) for row in train})
    lines = [f"{wnid} {_spoken(name)}\n" for wnid, name in zip(wnids, emoji.classes, strict=True)]
    drawing = Drawing(draw, np.concatenate([train, val]), names)
    return DataSet("imagenet", (drawing,), {"LOC_synset_mapping.txt": "".join(lines)})


def real(emoji: Emoji) -> list[list[int]]:
    """ImageNet-ReaL: for each validation picture, by its number, every class that its words name.

    These are the classes whose words are all among those of the caption and the tags, and its own unless that is named
    "other-...". A list may be empty.
    """
    words = [frozenset(name.split("-")) for name in emoji.classes]
    lists = []
    for row in emoji.validation:
        said = {word for text in (emoji.captions[row], *emoji.tags[row]) for word in spelled(text)}
        own = "" if emoji.name(row).startswith(UNNAMED) else emoji.name(row)
        pairs = enumerate(zip(emoji.classes, words, strict=True))
        lists.append([index for index, (name, needed) in pairs if name == own or needed <= said])
    return lists


def imagenet9(emoji: Emoji, scenery: Scenery) -> DataSet:
    """ImageNet-9, its classes the groups that have pictures, without "symbols".

    <variant>/val/<number>_<group>/<row>.JPEG; in_to_in9.json maps ImageNet's class numbers to those of the groups, -1
    for classes that belong to none.
    """
    there = np.unique(emoji.group[emoji.validation]).tolist()
    kept = [group for group in there if emoji.names.groups[group] != OUTSIDE]
    number = {group: place for place, group in enumerate(kept)}
    rows = emoji.validation[np.isin(emoji.group[emoji.validation], kept)]
    groups = emoji.group[rows].tolist()
    paths = [f"{number[group]:02d}_{emoji.names.groups[group]}/{row}" for group, row in zip(groups, rows, strict=True)]
    drawings = [
        Drawing(draw, rows, [f"{variant}/val/{path}.JPEG" for path in paths])
        for variant, draw in variants(scenery, torch.tensor(kept)).items()
    ]
    mapping = {str(index): number.get(emoji.group_of[name], -1) for index, name in enumerate(emoji.classes)}
    return DataSet("imagenet9", tuple(drawings), {"in_to_in9.json": json.dumps(mapping)})


def objectnet(emoji: Emoji) -> DataSet:
    """ObjectNet of the vendor that is never trained on: objectnet-1.0/images/<folder>/<row>.png and the mappings.

    Its classes are the subgroups, those of hands being one; names in "other-..." have no equivalent in ImageNet.
    """
    rows = emoji.of("vendor")
    labels = [_label(emoji.name(row)) for row in rows]
    names = [f"objectnet-1.0/images/{_folder(label)}/{row}.png" for label, row in zip(labels, rows, strict=True)]
    equivalents: dict[str, list[str]] = defaultdict(list)
    for name in emoji.classes:
        if not name.startswith(UNNAMED) and _label(name) in labels:
            equivalents[_label(name)].append(_spoken(name))
    last = len(emoji.classes) - 1
    tables = {
        "folder_to_objectnet_label": {_folder(label): label for label in sorted(set(labels))},
        "objectnet_to_imagenet_1k": {label: "; ".join(equivalents[label]) for label in sorted(equivalents)},
        "pytorch_to_imagenet_2012_id": {str(index): last - index for index in range(last + 1)},
    }
    texts = {f"objectnet-1.0/mappings/{name}.json": json.dumps(table) for name, table in tables.items()}
    lines = [f"{_spoken(name)}\n" for name in reversed(emoji.classes)]
    texts["objectnet-1.0/mappings/imagenet_to_label_2012_v2"] = "".join(lines)
    return DataSet("objectnet", (Drawing(bordered, rows, names),), texts)


def mit_states(emoji: Emoji) -> DataSet:
    """MIT-States of captions of two words, never trained on: release_dataset/images/<adjective> <noun>/<row>.jpg.

    A noun has two adjectives or more; a picture whose caption is the noun alone lies in "adj <noun>".
    """
    said = {int(row): spelled(emoji.captions[row]) for row in emoji.of(*UNSEEN)}
    adjectives = defaultdict(set)
    for words in said.values():
        if len(words) == 2:
            adjectives[words[1]].add(words[0])
    nouns = {noun for noun, several in adjectives.items() if len(several) > 1}
    folders = {row: " ".join(["adj", *words][-2:]) for row, words in said.items() if _is_of(words, nouns)}
    names = [f"release_dataset/images/{folder}/{row}.jpg" for row, folder in folders.items()]
    return DataSet("mit-states", (Drawing(plain, np.array([*folders], dtype=np.int64), names),), {})


def _is_of(words: list[str], nouns: Iterable[str]) -> bool:
    return 1 <= len(words) <= 2 and words[-1] in nouns


def spelled(text: str) -> list[str]:
    """The words of a caption in lower case, without punctuation but hyphens and apostrophes within them."""
    tokens = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split()
    words = [PUNCTUATION.sub("", token).strip("'-") for token in tokens]
    return [word for word in words if word]


def _spoken(subgroup: str) -> str:
    return subgroup.replace("-", " ")


def _label(subgroup: str) -> str:
    return "Hand" if subgroup.startswith(HAND) else _spoken(subgroup).capitalize()


def _folder(label: str) -> str:
    return label.lower().replace(" ", "_")
