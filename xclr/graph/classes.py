"""Class graphs: one similarity for every pair of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xclr import schema
from xclr.errors import DataError, RecipeError
from xclr.graph.embed import RowIds, read_captions, representatives
from xclr.stages import ClassGraphConfig, Produced, Progress, Stage

MAX_CLASSES = 32767  # ids are int16
CHUNK = 1 << 14

Matrix = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


def run(stage: Stage, out: Path, progress: Progress) -> Produced:
    """Stage "class_graph": captions and embeddings -> graph_class.parquet, C x C rows, symmetric, diagonal 1.

    Raises DataError when there are no labels, or too many classes for int16; RecipeError for an unknown source.
    """
    config = stage.config
    assert isinstance(config, ClassGraphConfig)
    if config.source not in SOURCES:
        raise RecipeError(f"no class graph {config.source!r}", "known: " + ", ".join(sorted(SOURCES)))
    captions = read_captions(stage.inputs["captions"].path / "captions.parquet")
    labels = read_labels(captions)
    stored = np.load(stage.inputs["embeddings"].path / "vectors.npy", mmap_mode="r")
    progress(0, 2)
    means = class_vectors(stored, labels, representatives(captions))
    progress(1, 2)
    similarity = SOURCES[config.source](means, config.seed)
    about = {"digest": stage.digest, "config": stage.identity}
    schema.write(table(similarity), out / "graph_class.parquet", schema.GRAPH_CLASS, about)
    progress(2, 2)
    upper = similarity[np.triu_indices(len(similarity), 1)]
    mean = float(upper.mean(dtype=np.float64)) if len(upper) else 0.0
    return Produced(("graph_class.parquet",), {"classes": len(similarity), "mean_similarity": mean})


def read_labels(captions: pa.Table) -> Labels:
    """The class of each row [n], -1 where it has none; raises DataError unless all lie in 0..32766 and one is there."""
    labels = captions["label"].combine_chunks()
    if labels.null_count == len(labels):
        raise DataError(
            "no row has a label, so there are no classes", "set data.label_column, or graph.source: captions"
        )
    given = labels.drop_null().to_numpy()
    if given.min() < 0:
        raise DataError(f"label {given.min()} is negative", "number the classes from 0")
    if given.max() >= MAX_CLASSES:
        raise DataError(
            f"label {given.max()} needs {int(given.max()) + 1} classes, a class graph holds {MAX_CLASSES}",
            "merge classes in data.label_column, or use graph.source: captions",
        )
    return np.asarray(labels.fill_null(-1).to_numpy(), dtype=np.int32)


def class_vectors(vectors: npt.NDArray[np.float16], labels: Labels, firsts: RowIds) -> npt.NDArray[np.float64]:
    """Normalised mean [C, d] of each class's distinct captions, zeros without any; firsts [n]: who stands for a row."""
    labelled = labels >= 0
    members = np.unique(np.stack([labels[labelled], firsts[labelled]], 1), axis=0)  # sorted by class
    sums = np.zeros((int(labels.max()) + 1, vectors.shape[1]))
    for start in range(0, len(members), CHUNK):
        classes, rows = members[start : start + CHUNK].T
        present, begins = np.unique(classes, return_index=True)
        sums[present] += np.add.reduceat(vectors[rows].astype(np.float64), begins, axis=0)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    means: npt.NDArray[np.float64] = np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0)
    return means


def cosine(means: npt.NDArray[np.float64]) -> Matrix:
    """Cosines [C, C] of class vectors [C, d], exactly symmetric, diagonal 1; 0 for a class without rows."""
    lower = np.tril(np.clip(means @ means.T, -1, 1), -1)
    return np.asarray(lower + lower.T + np.eye(len(means)), dtype=np.float32)


def random_class(means: npt.NDArray[np.float64], seed: int) -> Matrix:
    """The cosines of class vectors [C, d], shuffled over the pairs of classes that have rows.

    The values stay, which pair has which is lost: what a graph is worth beyond its distribution of similarities.
    """
    present = np.flatnonzero(means.any(axis=1))
    inner = cosine(means[present])
    upper = np.triu_indices(len(present), 1)
    shuffled = np.eye(len(present), dtype=np.float32)
    shuffled[upper] = np.random.default_rng(seed).permutation(inner[upper])
    shuffled.T[upper] = shuffled[upper]
    result = np.eye(len(means), dtype=np.float32)
    result[np.ix_(present, present)] = shuffled
    return result


def table(similarity: Matrix) -> pa.Table:
    """The graph_class table of a matrix [C, C], row by row."""
    ids = np.arange(len(similarity), dtype=np.int16)
    columns = {"src": np.repeat(ids, len(ids)), "dst": np.tile(ids, len(ids)), "sim": similarity.reshape(-1)}
    return pa.table(columns, schema=schema.GRAPH_CLASS)


SOURCES: Mapping[str, Callable[[npt.NDArray[np.float64], int], Matrix]] = {"random_class": random_class}
