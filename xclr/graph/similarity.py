"""Similarity sources: what training asks for the graph's block between rows of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from torch import Tensor

from xclr import schema
from xclr.errors import DataError
from xclr.graph.embed import read_captions, representatives
from xclr.graph.knn import TopK


class SimilaritySource(Protocol):
    """A graph over rows of the captions table."""

    def block(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Similarities [b, B] float32 in [-1, 1] of row ids `rows` [b] and `cols` [B], on the device of `rows`."""
        ...


class EmbeddingLookup:
    """Cosines of caption vectors [n, d], looked up by row_id; memory-mapped, so that only a batch's rows are read."""

    def __init__(self, vectors: npt.NDArray[np.float16] | npt.NDArray[np.float32]) -> None:
        self.vectors = vectors

    @classmethod
    def open(cls, path: Path) -> EmbeddingLookup:
        """Map a vectors.npy."""
        return cls(np.load(path, mmap_mode="r"))

    def gather(self, rows: Tensor) -> Tensor:
        """The vectors [b, d] float32 of row ids [b], on their device; raises IndexError for a row beyond the table."""
        return torch.from_numpy(self.vectors[rows.cpu().numpy()]).to(rows.device).float()

    def block(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Cosines [b, B], clamped to [-1, 1]."""
        return (self.gather(rows) @ self.gather(cols).T).clamp_(-1, 1)


class ClassGraph:
    """The similarity of two rows' classes; a row without a class (label -1) has 1 with itself and 0 else."""

    def __init__(self, matrix: Tensor, labels: Tensor) -> None:
        self.matrix = matrix  # [C, C] float32
        self.labels = labels  # [n] int64, by row_id

    @classmethod
    def open(cls, graph: Path, captions: Path) -> ClassGraph:
        """Read graph_class.parquet and the labels of captions.parquet; raises DataError when they do not fit."""
        edges = schema.read(graph, schema.GRAPH_CLASS)
        labels = read_captions(captions)["label"].fill_null(-1).to_numpy().astype(np.int64)
        classes = int(edges["src"].to_numpy().max(initial=-1)) + 1
        if edges.num_rows != classes**2 or labels.max() >= classes:
            raise DataError(
                f"{graph} has {edges.num_rows} rows for {classes} classes, the captions need {int(labels.max()) + 1}",
                "run the class_graph stage again on these captions",
            )
        matrix = np.zeros((classes, classes), dtype=np.float32)
        matrix[edges["src"].to_numpy(), edges["dst"].to_numpy()] = edges["sim"].to_numpy()
        return cls(torch.from_numpy(matrix), torch.from_numpy(labels))

    def block(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Class similarities [b, B]."""
        left, right = self.labels[rows.cpu()], self.labels[cols.cpu()]
        found = self.matrix[left.clamp_min(0)[:, None], right.clamp_min(0)].to(rows.device)
        unlabelled = ((left < 0)[:, None] | (right < 0)).to(rows.device)
        return torch.where(unlabelled, (rows[:, None] == cols).float(), found)


class KnnGraph:
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

    def block(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Stored similarities [b, B]; memory O((b + B) k + b B)."""
        left, at_left = _distinct(self.firsts[rows.cpu()])
        right, at_right = _distinct(self.firsts[cols.cpu()])
        found = torch.zeros(len(left), len(right))
        if found.numel():
            self._fill(found, left, right)
            self._fill(found.T, right, left)
        found.masked_fill_(left[:, None] == right, 1.0)
        return found[at_left[:, None], at_right].to(rows.device)

    def _fill(self, found: Tensor, rows: Tensor, cols: Tensor) -> None:
        """Write into found [b, B] what distinct rows keep about cols, both ascending."""
        nodes = torch.searchsorted(self.src, rows)
        ids, sims = self.neighbours.ids[nodes], self.neighbours.sims[nodes]
        place = torch.searchsorted(cols, ids).clamp_max(len(cols) - 1)
        row, slot = (cols[place] == ids).nonzero(as_tuple=True)
        found[row, place[row, slot]] = sims[row, slot]


def _distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct ids, ascending, and the place of each of `ids` among them."""
    values, places = np.unique(ids.numpy(), return_inverse=True)
    return torch.from_numpy(values), torch.from_numpy(places)
