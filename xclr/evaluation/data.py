"""What the suites read and return: features and labels by row, scores and predictions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from xclr import schema
from xclr.captions.shared import factors_of
from xclr.errors import DataError, anew
from xclr.evaluation.datasets import MAPPING
from xclr.evaluation.heads import LinearHead
from xclr.evaluation.score import Score

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
ROWS, VECTORS = "rows.npy", "vectors.npy"  # of a features artifact


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Frozen features: rows int64 [n], sorted; vectors float16 or float32 [n, d], perhaps memory-mapped."""

    rows: Ints
    vectors: NDArray[np.floating[Any]]

    def where(self, mask: Bools) -> FeatureSet:
        """The items where mask [n] is true."""
        return FeatureSet(self.rows[mask], self.vectors[mask])

    def tensor(self) -> Tensor:
        """The vectors in memory: float32 [n, d]."""
        return torch.from_numpy(np.asarray(self.vectors, dtype=np.float32))


@dataclass(frozen=True, eq=False)
class Features:
    """What a suite reads of a checkpoint: the features of pictures, and what else was made of it.

    `probe` is the linear head that was fitted to ImageNet's training pictures; `texts` are unit vectors of the text
    tower, with the class (zero-shot) or the row of the picture (retrieval) as row.
    """

    pictures: FeatureSet
    probe: LinearHead | None = None
    texts: FeatureSet | None = None


@dataclass(frozen=True, eq=False)
class Ragged:
    """A list of integers for each of N rows: row i has values[offsets[i]:offsets[i + 1]]."""

    offsets: Ints
    values: Ints

    @classmethod
    def of(cls, lists: Iterable[Iterable[int]]) -> Ragged:
        """From lists."""
        kept = [np.fromiter(each, dtype=np.int64) for each in lists]
        offsets = np.concatenate([[0], np.cumsum([len(each) for each in kept])]).astype(np.int64)
        return cls(offsets, np.concatenate([*kept, np.zeros(0, np.int64)]))

    @classmethod
    def single(cls, values: Ints) -> Ragged:
        """One value a row, none where it is -1."""
        known = values >= 0
        return cls(np.concatenate([[0], np.cumsum(known)]).astype(np.int64), values[known])

    @property
    def lengths(self) -> Ints:
        """How many each row has, [N]."""
        return np.diff(self.offsets)

    @property
    def first(self) -> Ints:
        """The first of each row, -1 for none, [N]."""
        there = self.lengths > 0
        first = np.full(len(there), -1, dtype=np.int64)
        first[there] = self.values[self.offsets[:-1][there]]
        return first

    def take(self, rows: Ints) -> Ragged:
        """The lists of some rows, in their order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        starts = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Ragged(offsets, self.values[starts + np.arange(offsets[-1])])

    def among(self, values: Ints) -> Ragged:
        """The lists without what is none of `values`."""
        kept = np.isin(self.values, values)
        return Ragged(np.concatenate([[0], np.cumsum(kept)])[self.offsets], self.values[kept])

    def contains(self, guesses: Ints) -> Bools:
        """Which of the guesses [N] are in their row's list, [N]."""
        found = np.zeros(len(guesses), dtype=np.bool_)
        rows = np.repeat(np.arange(len(guesses)), self.lengths)
        found[rows[self.values == guesses[rows]]] = True
        return found

    def arrow(self) -> pa.Array[Any]:
        """As a column of lists."""
        return pa.ListArray.from_arrays(pa.array(self.offsets, pa.int32()), pa.array(self.values, pa.int64()))


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of each of N rows.

    Its split; `targets`, every class that counts as right; and for some data the attribute and the group, int64 [N], -1
    for none; factors by name, int64 [N]; tags, N tuples of words; names, N file names. Of the C classes: names, synsets
    and which targets they are, `numbers` int64 [C], sorted. `mapping`, int64 [1,000], leads from ImageNet's classes to
    those of ImageNet-9, -1 for none.
    """

    split: NDArray[np.str_]
    targets: Ragged
    attribute: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    group: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    factors: Mapping[str, Ints] = field(default_factory=dict)
    tags: tuple[tuple[str, ...], ...] = ()
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    synsets: tuple[str | None, ...] = ()
    numbers: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    mapping: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def target(self) -> Ints:
        """The first class that counts, -1 for none, [N]."""
        return self.targets.first

    @property
    def places(self) -> Ints:
        """The place of each target among the classes, as a classifier of C outputs needs it, -1 for none, [N]."""
        return np.where(self.target < 0, -1, np.searchsorted(self.numbers, self.target))


@dataclass(frozen=True, eq=False)
class SuiteResult:
    """A suite's scores, and the answers that they were computed from (schema.predictions)."""

    scores: list[Score]
    predictions: pa.Table


class Answers(NamedTuple):
    """The answers of one split: rows [n], the classes that count as right, the guesses [n]."""

    split: str
    rows: Ints
    targets: Ragged
    guesses: Ints


def of_split(features: FeatureSet, labels: Labels, split: str, known: Ints | None = None) -> FeatureSet:
    """The items of a split; with known [N] only those whose entry there is not -1."""
    mask = labels.split[features.rows] == split
    return features.where(mask if known is None else mask & (known[features.rows] >= 0))


def load_features(path: Path) -> FeatureSet:
    """The features of an artifact, memory-mapped in float16.

    Raises DataError when the files do not belong together or a feature is not finite.
    """
    rows, vectors = np.load(path / ROWS), np.load(path / VECTORS, mmap_mode="r")
    if rows.ndim != 1 or vectors.ndim != 2 or len(rows) != len(vectors) or bool((np.diff(rows) <= 0).any()):
        raise DataError(f"{path} does not hold one vector a row, sorted by row", anew(path))
    for start in range(0, len(vectors), 1 << 16):
        if not np.isfinite(vectors[start : start + (1 << 16)]).all():
            raise DataError(f"{path} has features that are not finite", "lower train.learning_rate")
    return FeatureSet(np.asarray(rows, dtype=np.int64), vectors)


def load_labels(path: Path) -> Labels:
    """Read the labels of a captions artifact, or of a benchmark's.

    The target of an emoji is its subgroup. Raises DataError when the row ids are not 0..N-1.
    """
    if (path / "items.parquet").exists():
        return _of_benchmark(path)
    captions = _by_row(path, schema.read(path / "captions.parquet", schema.CAPTIONS))
    split = np.array(captions["split"].to_pylist(), dtype=np.str_)
    annotated = path / "annotations.parquet"
    if not annotated.exists():
        return replace(_own(split, _integers(captions["label"])), factors=factors_of(path) or {})
    annotations = _by_row(path, schema.read(annotated, schema.ANNOTATIONS))
    if annotations.num_rows != len(split):
        raise DataError(f"{path}: {annotations.num_rows} annotations of {len(split)} captions", anew(path))
    tags = tuple(tuple(words) for words in annotations["tags"].to_pylist())
    own = _own(split, _integers(annotations["subgroup"]))
    return replace(own, group=_integers(annotations["group"]), tags=tags)


def _own(split: NDArray[np.str_], target: Ints) -> Labels:
    return Labels(split, Ragged.single(target), numbers=np.unique(target[target >= 0]))


def _of_benchmark(path: Path) -> Labels:
    items = _by_row(path, schema.read(path / "items.parquet", schema.ITEMS))
    classes = schema.read(path / "classes.parquet", schema.CLASSES).sort_by("label")
    lists = items["targets"].combine_chunks()
    mapping = json.loads((path / MAPPING).read_text()) if (path / MAPPING).exists() else []
    return Labels(
        split=np.array(items["split"].to_pylist(), dtype=np.str_),
        targets=Ragged(lists.offsets.to_numpy().astype(np.int64), lists.values.to_numpy().astype(np.int64)),
        attribute=_integers(items["attribute"]),
        names=tuple(items["name"].to_pylist()),
        classes=tuple(classes["name"].to_pylist()),
        synsets=tuple(classes["synset"].to_pylist()),
        numbers=_integers(classes["label"]),
        mapping=np.array(mapping, dtype=np.int64),
    )


def _by_row(path: Path, table: pa.Table) -> pa.Table:
    table = table.sort_by("row_id")
    if not np.array_equal(table["row_id"].to_numpy(), np.arange(table.num_rows)):
        raise DataError(f"{path}: the row ids are not 0, 1, 2, ...", anew(path))
    return table


def _integers(column: pa.ChunkedArray[Any]) -> Ints:
    return np.array([-1 if value is None else value for value in column.to_pylist()], dtype=np.int64)


def predictions(parts: Iterable[Answers]) -> pa.Table:
    """One table of answers, which says of each whether it is right."""
    columns = schema.predictions(pa.int64())
    tables = [columns.empty_table()]
    for split, rows, targets, guesses in parts:
        right = targets.contains(guesses)
        data = [rows, pa.array([split] * len(rows), pa.string()), targets.arrow(), guesses, right]
        tables.append(pa.table(data, schema=columns))
    return pa.concat_tables(tables)
