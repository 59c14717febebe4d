"""Similarity sources: what training asks for the graph's block between rows of a batch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from xclr import schema
from xclr.captions.shared import factors_of
from xclr.errors import DataError
from xclr.graph.embed import read_captions, representatives
from xclr.graph.knn import TopK
from xclr.recipe import GraphSource, TargetGraph

VALUES = 1 << 16  # of RandomPair
BLOCKS, BLOCK = 16, 256  # of pairs by which Corrupted knows a graph: a million
CHANCES = 1 << 24  # that float32 tells apart
ROW_BYTES = 8
GOLDEN = 0x9E3779B97F4A7C15
BEYOND = 1 << 62  # above any row id

Rows = Callable[[slice], Tensor]


class SimilaritySource(ABC):
    """A graph over rows of the captions table, in two halves: what rows are compared by, and the comparison.

    Keys are looked up on the CPU by whoever loads a batch, and travel with it; the comparison is of tensors on any
    device and waits for none.
    """

    @abstractmethod
    def keys(self, rows: Tensor) -> Tensor:
        """What row ids [b] on the CPU are compared by, [b, ...] on the CPU; raises IndexError beyond the table."""

    @abstractmethod
    def between(self, own: Tensor, every: Tensor) -> Rows:
        """What gives the similarities [r, B] float32 in [-1, 1] of a slice of keys `own` with keys `every`."""

    def to(self, device: torch.device) -> SimilaritySource:
        """The same, with all that comparisons read on a device."""
        return self

    def block(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Similarities [b, B] of row ids `rows` [b] and `cols` [B] on the CPU."""
        return self.between(self.keys(rows), self.keys(cols))(slice(None))


class EmbeddingLookup(SimilaritySource):
    """Cosines of caption vectors [n, d], looked up by row_id; memory-mapped, so that only a batch's rows are read."""

    def __init__(self, vectors: npt.NDArray[np.float16] | npt.NDArray[np.float32]) -> None:
        self.vectors = vectors

    @classmethod
    def open(cls, path: Path) -> EmbeddingLookup:
        """Map a vectors.npy."""
        return cls(np.load(path, mmap_mode="r"))

    @property
    def width(self) -> int:
        """Size of a vector."""
        return int(self.vectors.shape[1])

    def keys(self, rows: Tensor) -> Tensor:
        """The vectors [b, d] as they are stored."""
        return torch.from_numpy(self.vectors[rows.numpy()])

    def between(self, own: Tensor, every: Tensor) -> Rows:
        """Cosines, clamped to [-1, 1]."""
        left, right = own.float(), every.float()
        return lambda part: (left[part] @ right.T).clamp_(-1, 1)


class SameRow(SimilaritySource):
    """1 for a row itself, else 0: the graph of SimCLR."""

    def keys(self, rows: Tensor) -> Tensor:
        """The row ids."""
        return rows

    def between(self, own: Tensor, every: Tensor) -> Rows:
        """Equality."""
        return lambda part: (own[part, None] == every).float()


class SameClass(SameRow):
    """1 within a class, else 0: the graph of SupCon; a row without a class (label -1) is alone."""

    def __init__(self, labels: Tensor) -> None:
        self.labels = alone(labels)  # [n] int64, by row_id

    @classmethod
    def open(cls, captions: Path, *, judged: bool = False) -> SameClass:
        """Read the labels of a captions artifact, or the classes that suites judge by where they are others.

        Raises DataError when there are none.
        """
        labels = judged_of_row(captions) if judged else class_of_row(captions / "captions.parquet")
        if (labels < 0).all():
            raise DataError("these data have no classes", "set data.label_column, or choose another graph")
        return cls(labels)

    def keys(self, rows: Tensor) -> Tensor:
        """Classes [b]."""
        return self.labels[rows]


class SameCaption(SameRow):
    """1 between rows whose captions are equal, else 0."""

    def __init__(self, firsts: Tensor) -> None:
        self.firsts = firsts  # [n] int64, by row_id: the row that stands for its caption

    @classmethod
    def open(cls, captions: Path) -> SameCaption:
        """Read which captions of an artifact are equal."""
        return cls(torch.from_numpy(representatives(read_captions(captions / "captions.parquet"))))

    def keys(self, rows: Tensor) -> Tensor:
        """The rows [b] that stand for their captions."""
        return self.firsts[rows]


def alone(labels: Tensor) -> Tensor:
    """Labels [n] int64 in which each row without a class (-1) has a number of its own, below zero."""
    return torch.where(labels < 0, -1 - torch.arange(len(labels)), labels)


class RandomPair(SimilaritySource):
    """For each pair of rows a value of its own from a table, 1 for a row itself: a graph without any structure.

    Which value depends on (seed, the smaller row id, the larger), so that a pair has the same one in every batch.
    """

    def __init__(self, values: Tensor, seed: int) -> None:
        self.values, self.seed = values, seed  # [2^k] float32

    @classmethod
    def open(cls, vectors: Path, seed: int) -> RandomPair:
        """Values: the cosines of VALUES random pairs of captions."""
        lookup = EmbeddingLookup.open(vectors)
        picked = np.random.default_rng(seed).integers(0, len(lookup.vectors), (2, VALUES))
        left, right = (lookup.keys(torch.from_numpy(each)).float() for each in picked)
        return cls((left * right).sum(1).clamp_(-1, 1), seed)

    def keys(self, rows: Tensor) -> Tensor:
        """The row ids."""
        return rows

    def between(self, own: Tensor, every: Tensor) -> Rows:
        """Drawn similarities."""
        return lambda part: self._drawn(own[part, None], every)

    def to(self, device: torch.device) -> RandomPair:
        """The table goes along."""
        return RandomPair(self.values.to(device), self.seed)

    def _drawn(self, rows: Tensor, cols: Tensor) -> Tensor:
        bits = _of_pair(rows, cols, self.seed)
        return self.values[bits & (len(self.values) - 1)].masked_fill_(rows == cols, 1.0)


class Permuted(EmbeddingLookup):
    """Cosines of captions in the wrong places: each class, or caption without a class, has the caption of another.

    Similarities are as many and as large as the captions', those within a class are 1, and none means anything.
    """

    def __init__(self, vectors: npt.NDArray[np.float16] | npt.NDArray[np.float32], stands_in: Tensor) -> None:
        super().__init__(vectors)
        self.stands_in = stands_in  # [n] int64: the row whose caption a row has

    @classmethod
    def of(cls, vectors: Path, captions: Path, seed: int) -> Permuted:
        """Permute the classes; the caption of a class is that of its first row."""
        labels, firsts = class_of_row(captions).numpy(), representatives(read_captions(captions))
        _, first, group = np.unique(np.where(labels < 0, -1 - firsts, labels), return_index=True, return_inverse=True)
        return cls(np.load(vectors, mmap_mode="r"), torch.from_numpy(first[_others(len(first), seed)[group]]))

    @classmethod
    def of_rows(cls, vectors: Path, seed: int) -> Permuted:
        """Permute the rows: each has the caption of another, whatever their classes."""
        stored = np.load(vectors, mmap_mode="r")
        return cls(stored, torch.from_numpy(_others(len(stored), seed)))

    def keys(self, rows: Tensor) -> Tensor:
        """The vectors [b, d] of the captions that stand in."""
        return super().keys(self.stands_in[rows])


def _others(n: int, seed: int) -> npt.NDArray[np.int64]:
    """For each of n things another one, [n]: a permutation of one cycle, so that none keeps its own."""
    order = np.random.default_rng(seed).permutation(n)
    given = np.empty_like(order)
    given[order] = np.roll(order, 1)
    return given


def _of_pair(rows: Tensor, cols: Tensor, seed: int) -> Tensor:
    """int64 bits for each pair of row ids that broadcast, a function of (seed, the smaller, the larger)."""
    return _mixed(_mixed(torch.minimum(rows, cols) + seed * GOLDEN % 2**63) + torch.maximum(rows, cols))


def _mixed(bits: Tensor) -> Tensor:
    """int64 bits, each of which depends on all of the input's; multiplication wraps."""
    bits = (bits ^ (bits >> 31)) * -0x61C8864680B583EB
    bits = (bits ^ (bits >> 29)) * 0x2545F4914F6CDD1D
    return bits ^ (bits >> 32)


class ClassGraph(SimilaritySource):
    """The similarity of two rows' classes; a row without a class (label -1) has 1 with itself and 0 else."""

    def __init__(self, matrix: Tensor, labels: Tensor) -> None:
        self.matrix = matrix  # [C, C] float32
        self.labels = labels  # [n] int64, by row_id, as `alone` numbers them

    @classmethod
    def open(cls, graph: Path, captions: Path) -> ClassGraph:
        """Read graph_class.parquet and the labels of captions.parquet; raises DataError when they do not fit."""
        edges = schema.read(graph, schema.GRAPH_CLASS)
        labels = class_of_row(captions)
        classes = int(edges["src"].to_numpy().max(initial=-1)) + 1
        if edges.num_rows != classes**2 or int(labels.max()) >= classes:
            raise DataError(
                f"{graph} has {edges.num_rows} rows for {classes} classes, the captions need {int(labels.max()) + 1}",
                "run the class_graph stage again on these captions",
            )
        matrix = np.zeros((classes, classes), dtype=np.float32)
        matrix[edges["src"].to_numpy(), edges["dst"].to_numpy()] = edges["sim"].to_numpy()
        return cls(torch.from_numpy(matrix), alone(labels))

    def keys(self, rows: Tensor) -> Tensor:
        """Classes [b]."""
        return self.labels[rows]

    def between(self, own: Tensor, every: Tensor) -> Rows:
        """Class similarities."""
        return lambda part: self._of_classes(own[part, None], every)

    def to(self, device: torch.device) -> ClassGraph:
        """The matrix goes along."""
        return ClassGraph(self.matrix.to(device), self.labels)

    def _of_classes(self, left: Tensor, right: Tensor) -> Tensor:
        found = self.matrix[left.clamp_min(0), right.clamp_min(0)]
        return torch.where((left < 0) | (right < 0), (left == right).float(), found)


class KnnGraph(SimilaritySource):
    """A sparse graph: the stored similarity where either row keeps the other, 1 for equal captions, else 0."""

    def __init__(self, src: Tensor, neighbours: TopK, firsts: Tensor) -> None:
        self.src = src  # [m] int64 ascending: row ids of the distinct captions
        self.neighbours = neighbours  # [m, k]; ids are row ids
        self.firsts = firsts  # [n] int64: by row_id, the row that stands for its caption

    @classmethod
    def open(cls, graph: Path, captions: Path) -> KnnGraph:
        """Read graph_knn.parquet and the duplicates of captions.parquet; raises DataError when they do not fit."""
        k = pq.read_schema(graph).field("dst").type.list_size
        edges = schema.read(graph, schema.graph_knn(k))
        src = edges["src"].to_numpy()
        firsts = representatives(read_captions(captions))
        if not np.array_equal(src, np.unique(firsts)):
            raise DataError(f"the nodes of {graph} are not the distinct captions", "run the graph stage again on them")
        ids, sims = (edges[name].combine_chunks().flatten().to_numpy().reshape(-1, k) for name in ("dst", "sim"))
        kept = TopK(torch.tensor(ids), torch.tensor(sims))
        return cls(torch.tensor(src), kept, torch.from_numpy(firsts))

    def keys(self, rows: Tensor) -> Tensor:
        """The rows [b] that stand for their captions."""
        return self.firsts[rows]

    def between(self, own: Tensor, every: Tensor) -> Rows:
        """Stored similarities; memory O((b + B) k + b B)."""
        return lambda part: self._stored(own[part], every)

    def to(self, device: torch.device) -> KnnGraph:
        """The neighbours go along: 12 bytes an edge."""
        ids, sims = self.neighbours
        return KnnGraph(self.src.to(device), TopK(ids.to(device), sims.to(device)), self.firsts)

    def _stored(self, left: Tensor, right: Tensor) -> Tensor:
        kept = self._kept(left, right)
        found = torch.where(kept.isnan(), self._kept(right, left).T, kept).nan_to_num_(0.0)
        return found.masked_fill_(left[:, None] == right, 1.0)

    def _kept(self, rows: Tensor, cols: Tensor) -> Tensor:
        """What rows [b] keep about cols [B], NaN where nothing: [b, B]."""
        nodes = torch.searchsorted(self.src, rows)
        ids, sims = self.neighbours.ids[nodes], self.neighbours.sims[nodes]
        ordered = nn.functional.pad(cols.sort().values, (0, 1), value=BEYOND)
        place = torch.searchsorted(ordered, ids)
        found = sims.new_full((len(rows), len(cols) + 1), torch.nan)  # the last column takes what is not in the batch
        found.scatter_(1, torch.where(ordered[place] == ids, place, len(cols)), sims)
        return found[:, torch.searchsorted(ordered, cols)]


class EdgeGraph(SimilaritySource):
    """A sparse graph of given edges: 1 for rows that are called the same, the edge's similarity, else 0."""

    def __init__(self, codes: Tensor, sims: Tensor, nodes: Tensor) -> None:
        self.codes = codes  # [m] int64 ascending, src * n + dst with src < dst; a last one of no pair
        self.sims = sims  # [m] float32
        self.nodes = nodes  # [n] int64: by row_id, the row that stands for it

    @classmethod
    def open(cls, graph: Path) -> EdgeGraph:
        """Read the edges.parquet and nodes.parquet of a folder."""
        edges = schema.read(graph / "edges.parquet", schema.GRAPH_EDGES)
        nodes = schema.read(graph / "nodes.parquet", schema.NODES).sort_by("row_id")["node"].to_numpy()
        src, dst, sims = (edges[name].to_numpy() for name in ("src", "dst", "sim"))
        codes = np.append(src * len(nodes) + dst, BEYOND)
        return cls(torch.from_numpy(codes), torch.from_numpy(np.append(sims, np.float32(0))), torch.tensor(nodes))

    def keys(self, rows: Tensor) -> Tensor:
        """The rows [b] that stand for them."""
        return self.nodes[rows]

    def between(self, own: Tensor, every: Tensor) -> Rows:
        """Given similarities; each pair is looked up by halving."""
        return lambda part: self._given(own[part, None], every)

    def to(self, device: torch.device) -> EdgeGraph:
        """The edges go along: 12 bytes each."""
        moved = copy(self)
        moved.codes, moved.sims = self.codes.to(device), self.sims.to(device)
        return moved

    def _given(self, left: Tensor, right: Tensor) -> Tensor:
        asked = torch.minimum(left, right) * len(self.nodes) + torch.maximum(left, right)
        place = torch.searchsorted(self.codes, asked)
        found = torch.where(self.codes[place] == asked, self.sims[place], 0.0)
        return found.masked_fill_(left == right, 1.0)


class SharedFactors(SimilaritySource):
    """The share of factors that two drawn scenes have in common: the graph that their captions approximate."""

    def __init__(self, factors: Tensor) -> None:
        self.factors = factors  # [n, F] int64, by row_id

    @classmethod
    def open(cls, captions: Path) -> SharedFactors:
        """Read the factors of a captions artifact; raises DataError where it tells of none."""
        factors = factors_of(captions)
        if factors is None:
            raise DataError("the truth is known of drawn scenes alone", "choose another graph.source")
        return cls(torch.from_numpy(np.stack(list(factors.values()), axis=1)))

    def keys(self, rows: Tensor) -> Tensor:
        """Factors [b, F]."""
        return self.factors[rows]

    def between(self, own: Tensor, every: Tensor) -> Rows:
        """Shares, from 0 to 1."""
        return lambda part: (own[part, None] == every).float().mean(2)


class Corrupted(SimilaritySource):
    """Another graph some of whose edges are lost, and which has false ones.

    An edge is a pair of rows that are at least `cutoff` similar. It is lost with probability `drop`, and then has the
    similarity `unlike`; what is none becomes one, of similarity 1, with probability `add`. What becomes of a pair is a
    function of (seed, the smaller row id, the larger); a row and itself are as they were.
    """

    def __init__(
        self, inner: SimilaritySource, seed: int, *, cutoff: float, drop: float, add: float, unlike: float
    ) -> None:
        self.inner, self.seed = inner, seed
        self.cutoff, self.drop, self.add, self.unlike = cutoff, drop, add, unlike
        self.kind = inner.keys(torch.zeros(1, dtype=torch.int64))  # of which dtype and shape its keys are

    @classmethod
    def of(cls, inner: SimilaritySource, rows: int, graph: TargetGraph) -> Corrupted:
        """As a recipe says it of a graph over so many rows; shares and means are those of BLOCKS drawn blocks."""
        corrupt = graph.corrupt
        assert corrupt is not None
        random = np.random.default_rng(graph.seed)
        blocks = [torch.from_numpy(random.integers(rows, size=(2, BLOCK))) for _ in range(BLOCKS)]
        drawn = torch.cat([inner.block(*ends)[ends[0][:, None] != ends[1]] for ends in blocks])
        none = drawn[drawn < corrupt.cutoff]
        add = corrupt.add * (len(drawn) - len(none)) / max(len(none), 1)
        unlike = float(none.mean()) if len(none) else 0.0
        return cls(inner, graph.seed, cutoff=corrupt.cutoff, drop=corrupt.drop, add=add, unlike=unlike)

    def keys(self, rows: Tensor) -> Tensor:
        """The bytes of the other graph's keys, and of the row ids: uint8 [b, n]."""
        return torch.cat([_bytes_of(self.inner.keys(rows)), _bytes_of(rows)], dim=1)

    def between(self, own: Tensor, every: Tensor) -> Rows:
        """The other graph's similarities, some of them changed."""
        (own, rows), (every, cols) = self._apart(own), self._apart(every)
        similar = self.inner.between(own, every)
        return lambda part: self._changed(similar(part), rows[part, None], cols)

    def to(self, device: torch.device) -> Corrupted:
        """The other graph goes along."""
        moved = copy(self)
        moved.inner = self.inner.to(device)
        return moved

    def _apart(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """The other graph's keys, and row ids [b]."""
        inner = keys[:, :-ROW_BYTES].contiguous().view(self.kind.dtype).view(len(keys), *self.kind.shape[1:])
        return inner, keys[:, -ROW_BYTES:].contiguous().view(torch.int64)[:, 0]

    def _changed(self, similar: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        chance = (_of_pair(rows, cols, self.seed) & (CHANCES - 1)).float() / CHANCES
        edge, other = similar >= self.cutoff, rows != cols
        found = similar.masked_fill(edge & other & (chance < self.drop), self.unlike)
        return found.masked_fill_(~edge & other & (chance < self.add), 1.0)


def _bytes_of(keys: Tensor) -> Tensor:
    """Keys [b, ...] on the CPU as uint8 [b, n]."""
    flat = keys.contiguous().numpy().reshape(len(keys), math.prod(keys.shape[1:]))
    return torch.from_numpy(flat.view(np.uint8))


def class_of_row(captions: Path) -> Tensor:
    """Class of each row of captions.parquet, -1 where there is none: int64 [n]."""
    return torch.from_numpy(read_captions(captions)["label"].fill_null(-1).to_numpy().astype(np.int64))


def judged_of_row(captions: Path) -> Tensor:
    """The class of each row that suites judge by, of a captions artifact: an emoji's subgroup, else its class."""
    annotated = captions / "annotations.parquet"
    if not annotated.exists():
        return class_of_row(captions / "captions.parquet")
    table = schema.read(annotated, schema.ANNOTATIONS, ["row_id", "subgroup"]).sort_by("row_id")
    return torch.from_numpy(table["subgroup"].to_numpy().astype(np.int64))


Inputs = Mapping[str, Path]  # directories of artifacts by role


def _class_graph(inputs: Inputs, _: TargetGraph) -> SimilaritySource:
    return ClassGraph.open(inputs["class_graph"] / "graph_class.parquet", inputs["captions"] / "captions.parquet")


def _of_function(inputs: Inputs, _: TargetGraph) -> SimilaritySource:
    folder = inputs["own_graph"]
    if (folder / "vectors.npy").exists():
        return EmbeddingLookup.open(folder / "vectors.npy")
    if not (folder / "matrix.npy").exists():
        return EdgeGraph.open(folder)
    matrix = torch.from_numpy(np.load(folder / "matrix.npy", mmap_mode="c"))
    return ClassGraph(matrix, torch.arange(len(matrix)))


SOURCES: Mapping[GraphSource, Callable[[Inputs, TargetGraph], SimilaritySource]] = {
    "captions": lambda inputs, _: EmbeddingLookup.open(inputs["embeddings"] / "vectors.npy"),
    "class_captions": _class_graph,
    "wordnet": _class_graph,
    "random_class": _class_graph,
    "class": lambda inputs, _: SameClass.open(inputs["captions"]),
    "augmentation": lambda _inputs, _: SameRow(),
    "random_pair": lambda inputs, graph: RandomPair.open(inputs["embeddings"] / "vectors.npy", graph.seed),
    "permuted": lambda inputs, graph: Permuted.of(
        inputs["embeddings"] / "vectors.npy", inputs["captions"] / "captions.parquet", graph.seed
    ),
    "shuffled": lambda inputs, graph: Permuted.of_rows(inputs["embeddings"] / "vectors.npy", graph.seed),
    "knn": lambda inputs, _: KnnGraph.open(
        inputs["graph"] / "graph_knn.parquet", inputs["captions"] / "captions.parquet"
    ),
    "truth": lambda inputs, _: SharedFactors.open(inputs["captions"]),
    "matrix": lambda inputs, _: ClassGraph.open(
        inputs["own_graph"] / "graph_class.parquet", inputs["captions"] / "captions.parquet"
    ),
    "edges": lambda inputs, _: EdgeGraph.open(inputs["own_graph"]),
    "python": _of_function,
}


def open_similarity(graph: TargetGraph, inputs: Inputs) -> SimilaritySource:
    """The similarities that a recipe's graph names, from the artifacts that a pretraining reads."""
    found = SOURCES[graph.source](inputs, graph)
    if graph.target.corrupt is None:
        return found
    return Corrupted.of(found, pq.read_metadata(inputs["captions"] / "captions.parquet").num_rows, graph.target)
