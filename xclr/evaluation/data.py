"""What the suites read and return: features and labels by row, scores and predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xclr import schema
from xclr.errors import DataError
from xclr.evaluation.score import Score

Ints = NDArray[np.int64]
ROWS = ".rows.npy"  # <variant>.rows.npy beside <variant>.npy
ITEMS = pa.schema(  # items.parquet of a benchmark's features
    [
        schema.required("row_id", pa.int64()),
        schema.required("name", pa.string()),
        schema.required("split", pa.string()),
        schema.required("label", pa.int64()),
    ],
    metadata={"schema": "items", "version": str(schema.VERSION)},
)


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Frozen features of one rendering: rows int64 [n], sorted; vectors float32 [n, d]."""

    rows: Ints
    vectors: NDArray[np.float32]

    def where(self, mask: NDArray[np.bool_]) -> FeatureSet:
        """The items where mask [n] is true."""
        return FeatureSet(self.rows[mask], self.vectors[mask])


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of each row: split [N]; target and group int64 [N], -1 for none; tags, N tuples of words."""

    split: NDArray[np.str_]
    target: Ints
    group: Ints
    tags: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class SuiteResult:
    """A suite's scores, and a table (row_id, split, target, prediction) of what they were computed from."""

    scores: list[Score]
    predictions: pa.Table


def variant(features: FeatureSet | None, name: str) -> FeatureSet:
    """The features of a rendering; raises DataError naming it when there are none."""
    if features is None:
        raise DataError(f"the features have no rendering {name!r}", "leave out the suite that needs it, or use emoji")
    return features


def of_split(features: FeatureSet, labels: Labels, split: str, known: Ints | None = None) -> FeatureSet:
    """The items of a split; with known [N] only those whose entry there is not -1."""
    mask = labels.split[features.rows] == split
    return features.where(mask if known is None else mask & (known[features.rows] >= 0))


def load_features(path: Path) -> dict[str, FeatureSet]:
    """Read every rendering of a features artifact as float32.

    Raises DataError when a rendering's files do not belong together or a feature is not finite.
    """
    names = sorted(each.name.removesuffix(ROWS) for each in path.glob(f"*{ROWS}"))
    return {name: _load_variant(path, name) for name in names}


def _load_variant(path: Path, name: str) -> FeatureSet:
    rows = np.load(path / f"{name}{ROWS}", mmap_mode="r")
    vectors = np.load(path / f"{name}.npy", mmap_mode="r")
    if rows.ndim != 1 or vectors.ndim != 2 or len(rows) != len(vectors) or bool((np.diff(rows) <= 0).any()):
        raise DataError(f"{path}: rendering {name!r} is not one vector a row, sorted by row", "run the recipe again")
    result = FeatureSet(np.asarray(rows, dtype=np.int64), np.asarray(vectors, dtype=np.float32))
    if not np.isfinite(result.vectors).all():
        raise DataError(f"{path}: rendering {name!r} has features that are not finite", "lower train.learning_rate")
    return result


def load_labels(path: Path) -> Labels:
    """Read the labels of a captions artifact, or of a benchmark's features.

    The target is the subgroup where there are annotations, else the label.

    Raises DataError when the row ids are not 0..N-1.
    """
    if (path / "items.parquet").exists():
        items = _by_row(schema.read(path / "items.parquet", ITEMS))
        split, none = np.array(items["split"].to_pylist(), dtype=np.str_), np.full(items.num_rows, -1, dtype=np.int64)
        return Labels(split, _integers(items["label"]), none, ((),) * len(split))
    captions = _by_row(schema.read(path / "captions.parquet", schema.CAPTIONS))
    split = np.array(captions["split"].to_pylist(), dtype=np.str_)
    annotated = path / "annotations.parquet"
    if not annotated.exists():
        none = np.full(len(split), -1, dtype=np.int64)
        return Labels(split, _integers(captions["label"]), none, ((),) * len(split))
    annotations = _by_row(schema.read(annotated, schema.ANNOTATIONS))
    if annotations.num_rows != len(split):
        raise DataError(f"{path}: {annotations.num_rows} annotations of {len(split)} captions", "run the recipe again")
    tags = tuple(tuple(words) for words in annotations["tags"].to_pylist())
    return Labels(split, _integers(annotations["subgroup"]), _integers(annotations["group"]), tags)


def _by_row(table: pa.Table) -> pa.Table:
    table = table.sort_by("row_id")
    if not np.array_equal(table["row_id"].to_numpy(), np.arange(table.num_rows)):
        raise DataError("the row ids are not 0, 1, 2, ...", "run the recipe again")
    return table


def _integers(column: pa.ChunkedArray[Any]) -> Ints:
    return np.array([-1 if value is None else value for value in column.to_pylist()], dtype=np.int64)


def predictions(parts: list[tuple[str, Ints, Any, Any]], kind: pa.DataType) -> pa.Table:
    """One table of (split, rows, targets, predictions) parts, whose targets and predictions have the type `kind`."""
    columns = pa.schema(
        [
            schema.required("row_id", pa.int64()),
            schema.required("split", pa.string()),
            schema.required("target", kind),
            schema.required("prediction", kind),
        ],
        metadata={"schema": "predictions", "version": str(schema.VERSION)},
    )
    tables = [
        pa.table(
            [rows, pa.array([split] * len(rows), pa.string()), pa.array(target, kind), pa.array(guess, kind)], columns
        )
        for split, rows, target, guess in parts
    ]
    return pa.concat_tables([columns.empty_table(), *tables])
