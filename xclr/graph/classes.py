"""Class graphs: one similarity for every pair of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xclr import schema
from xclr.errors import DataError, RecipeError
from xclr.graph.embed import RowIds, read_captions, representatives
from xclr.graph.encoder import open_encoder
from xclr.graph.stages import ClassGraphConfig
from xclr.graph.wordnet import located, wu_palmer
from xclr.stage import Produced, Progress, Stage

FILES = ("graph_class.parquet", "classes.parquet")  # the second says what the ids of the first stand for
MAX_CLASSES = 32767  # ids are int16
CHUNK = 1 << 14

Matrix = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]


def run(stage: Stage[ClassGraphConfig], out: Path, progress: Progress) -> Produced:
    """Stage "class_graph": captions, and embeddings where it shuffles them -> graph_class.parquet, C x C rows, and its
    classes.parquet.

    Symmetric, diagonal 1. Raises DataError when there are no labels, too many classes for int16, two classes of one
    name, or a class that WordNet does not know; RecipeError for an unknown source.
    """
    config = stage.config
    if config.source not in SOURCES:
        raise RecipeError(f"no class graph {config.source!r}", "known: " + ", ".join(sorted(SOURCES)))
    progress(0, 2)
    similarity = SOURCES[config.source](stage, config)
    progress(1, 2)
    produced = write_similarities(stage, similarity, out)
    progress(2, 2)
    return produced


def write_similarities(stage: Stage, similarity: Matrix, out: Path) -> Produced:
    """Write what lies between all classes [C, C] of a stage's captions, and their names."""
    about = {"digest": stage.digest, "config": stage.identity}
    schema.write(table(similarity), out / "graph_class.parquet", schema.GRAPH_CLASS, about)
    classes = schema.read(stage.inputs["captions"].path / "classes.parquet", schema.CLASSES)
    schema.write(classes, out / "classes.parquet", schema.CLASSES, about)
    upper = similarity[np.triu_indices(len(similarity), 1)]
    mean = float(upper.mean(dtype=np.float64)) if len(upper) else 0.0
    return Produced(FILES, {"classes": len(similarity), "mean_similarity": mean})


def shuffled_captions(stage: Stage[ClassGraphConfig], config: ClassGraphConfig) -> Matrix:
    """The similarities of classes by their captions, shuffled over pairs of classes."""
    captions = read_captions(stage.inputs["captions"].path / "captions.parquet")
    stored = np.load(stage.inputs["embeddings"].path / "vectors.npy", mmap_mode="r")
    return random_class(class_vectors(stored, class_ids_of(captions), representatives(captions)), config.seed)


def class_captions(stage: Stage[ClassGraphConfig], config: ClassGraphConfig) -> Matrix:
    """The cosines of the class names' captions, "a photo of a {}"."""
    assert config.model is not None and config.template is not None
    names = [name for name, _ in read_classes(stage)]
    check_apart(names)
    encoder = open_encoder(config.model)
    vectors = encoder.encode([config.template.replace("{}", name) for name in names]).astype(np.float64)
    return cosine(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def wordnet_classes(stage: Stage[ClassGraphConfig], config: ClassGraphConfig) -> Matrix:
    """Wu-Palmer similarities; the mean of both orders of a pair, should they differ, and 1 of a class with itself.

    NLTK gives a dog less than 1 with itself: its shortest way to the root is shorter than that of its hypernym.
    """
    synsets, taxonomy = located(read_classes(stage))
    similarity = wu_palmer(synsets, taxonomy)
    similarity = (similarity + similarity.T) / 2
    np.fill_diagonal(similarity, 1.0)
    return similarity.astype(np.float32)


def read_classes(stage: Stage) -> list[tuple[str, str | None]]:
    """Name and synset of each class, by label; raises DataError without classes, or with too many."""
    captions = stage.inputs["captions"].path
    class_ids_of(read_captions(captions / "captions.parquet"))
    rows = schema.read(captions / "classes.parquet", schema.CLASSES).to_pylist()
    return [(each["name"], each["synset"]) for each in rows]


def check_apart(names: Sequence[str]) -> None:
    """Raise DataError when two classes have one name, which would make them one class."""
    seen: dict[str, int] = {}
    for label, name in enumerate(names):
        key = name.casefold()
        if key in seen:
            raise DataError(
                f"classes {seen[key]} and {label} have one name, {name!r}: their captions could not be told apart",
                "rename one of them in the data, or use graph.source: captions",
            )
        seen[key] = label


def class_ids_of(captions: pa.Table) -> Labels:
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


SOURCES: Mapping[str, Callable[[Stage, ClassGraphConfig], Matrix]] = {
    "random_class": shuffled_captions,
    "class_captions": class_captions,
    "wordnet": wordnet_classes,
}
