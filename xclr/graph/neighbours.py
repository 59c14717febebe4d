"""The similarity graph a person looks at: the nearest neighbours of every distinct caption, as Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from xclr import schema
from xclr.errors import DataError
from xclr.graph.embed import RowIds, distinct, read_captions
from xclr.graph.knn import TopK, best_of, self_join
from xclr.stages import GraphKnnConfig, Produced, Progress, Stage

SAMPLE = 100_000  # pairs behind mean_similarity
NEAR_DUPLICATE = 0.95


def run(stage: Stage, out: Path, progress: Progress) -> Produced:
    """Stage "graph": captions and embeddings -> graph_knn.parquet, whose ids are the row_id of distinct captions.

    Raises DataError when k is not below the number of distinct captions.
    """
    config = stage.config
    assert isinstance(config, GraphKnnConfig)
    nodes = distinct(read_captions(stage.inputs["captions"].path / "captions.parquet"))
    if config.k >= len(nodes):
        raise DataError(
            f"graph.k {config.k} needs more than {len(nodes)} distinct captions",
            f"--set graph.k={len(nodes) - 1}" if len(nodes) > 1 else "give at least two different captions",
        )
    stored = np.load(stage.inputs["embeddings"].path / "vectors.npy", mmap_mode="r")
    vectors = torch.from_numpy(stored[nodes]).to("cuda" if torch.cuda.is_available() else "cpu")
    found, count = self_join(vectors, config.k, block=config.block, cutoff=config.cutoff, progress=progress)
    found = cosines(found)
    about = {"digest": stage.digest, "config": stage.identity}
    schema.write(table(nodes, found, count), out / "graph_knn.parquet", schema.graph_knn(config.k), about)
    return Produced(("graph_knn.parquet",), statistics(vectors, found, count))


def cosines(found: TopK) -> TopK:
    """Similarities clamped to [-1, 1], which half precision may leave by 1e-4, and ties ordered again."""
    return best_of(found.ids, found.sims.clamp(-1, 1), found.ids.shape[1])


def table(nodes: RowIds, found: TopK, count: Tensor) -> pa.Table:
    """The graph_knn table: positions among the nodes become their row_id; -1 stays."""
    k = found.ids.shape[1]
    ids = found.ids.cpu().numpy()
    dst = np.where(ids < 0, -1, nodes[ids]).astype(np.int64)
    columns = {
        "src": pa.array(nodes),
        "dst": pa.FixedSizeListArray.from_arrays(pa.array(dst.reshape(-1)), k),
        "sim": pa.FixedSizeListArray.from_arrays(pa.array(found.sims.cpu().numpy().reshape(-1)), k),
        "count": pa.array(count.cpu().numpy()),
    }
    return pa.table(columns, schema=schema.graph_knn(k))


def statistics(vectors: Tensor, found: TopK, count: Tensor) -> dict[str, Any]:
    """Numbers worth showing of a graph; near_duplicates counts the pairs among the neighbours kept."""
    return {
        "nodes": len(count),
        "edges": int(count.sum()) // 2,
        "mean_similarity": mean_similarity(vectors, seed=0),
        "median_top1": float(found.sims[:, 0].median()),
        "isolated": float((count == 0).float().mean()),
        "near_duplicates": near_duplicates(found),
    }


def mean_similarity(vectors: Tensor, seed: int) -> float:
    """Mean inner product of 100,000 random pairs of different rows of vectors [n, d]."""
    n = len(vectors)
    rng = np.random.default_rng(seed)
    left = rng.integers(n, size=SAMPLE)
    right = (left + rng.integers(1, n, size=SAMPLE)) % n
    total = 0.0
    for start in range(0, SAMPLE, 10_000):
        at = slice(start, start + 10_000)
        total += float((vectors[left[at]].double() * vectors[right[at]].double()).sum())
    return total / SAMPLE


def near_duplicates(found: TopK) -> int:
    """Unordered pairs of neighbours with similarity above 0.95."""
    src, place = (found.sims > NEAR_DUPLICATE).nonzero(as_tuple=True)
    pairs = torch.stack([src, found.ids[src, place]], 1).sort(dim=1).values
    return len(np.unique(pairs.cpu().numpy(), axis=0))
