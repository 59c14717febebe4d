"""Exact and approximate graphs beside FAISS and pynndescent, on clustered vectors and on real captions.

The real ones are 200,000 texts of WordNet, embedded once into .bench/words.npy: ten minutes of both cores. Their
figures are medians of three rounds in turn, HNSW's of one, since it takes a minute and a half.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from tests.bench.losses import unit
from tests.bench.measure import Figure, compare, spent
from tests.bench.words import texts
from xclr.graph import SentenceEncoder, self_join
from xclr.graph.approximate import approximate_join
from xclr.stages import GraphKnnConfig
from xclr.textmodel import locate

SIZES = (16_384, 32_768)
K, CUTOFF, BLOCK = 32, 0.6, 2048
WORDS, RECALL = 200_000, 0.99
STORED = Path(".bench") / "words.npy"
CHUNK = 4096
Halves = npt.NDArray[np.float16]


def figures() -> Iterator[Figure]:
    faiss.omp_set_num_threads(1)
    for n in SIZES:
        yield from exact(n)
    yield from approximate(words(WORDS))


def exact(n: int) -> Iterator[Figure]:
    """Against faiss.knn, and against the matrix products alone of all rows with all."""
    vectors = clustered(n)
    array = vectors.numpy()

    def ours() -> object:
        return self_join(vectors, K, block=BLOCK, cutoff=CUTOFF)

    def peer() -> object:
        return faiss.knn(array, array, K + 1, metric=faiss.METRIC_INNER_PRODUCT)

    def products() -> None:
        for start in range(0, n, BLOCK):
            torch.mm(vectors[start : start + BLOCK], vectors.T)

    yield compare(f"exact graph / faiss.knn, n = {n:,}", ours, peer, 0.70, rounds=3)
    yield compare(f"exact graph / products of all rows, n = {n:,}", ours, products, 0.75, rounds=3)


def clustered(n: int) -> torch.Tensor:
    """Unit vectors around 400 centres, 41 neighbours above 0.6 each in 16,384."""
    generator = torch.Generator().manual_seed(3)
    picked = unit(400, 384, 2)[torch.randint(400, (n,), generator=generator)]
    return F.normalize(picked + 0.6 * unit(n, 384, 4), dim=1)


def words(n: int) -> Halves:
    """The vectors of real short texts, embedded once."""
    if STORED.exists():
        stored: Halves = np.load(STORED)
        return stored[:n]
    torch.set_num_threads(os.cpu_count() or 1)
    encoder = SentenceEncoder(locate("sentence-transformers/all-MiniLM-L6-v2"))
    captions = sorted((text for _, text in texts(WORDS)), key=len, reverse=True)
    vectors = np.concatenate([encoder.encode(captions[at : at + CHUNK]) for at in range(0, WORDS, CHUNK)])
    torch.set_num_threads(1)
    STORED.parent.mkdir(exist_ok=True)
    np.save(STORED, np.random.default_rng(0).permutation(vectors.astype(np.float16)))
    return words(n)


def approximate(vectors: Halves) -> Iterator[Figure]:
    """The cost at a recall of 0.99 beside the best peer that reaches it; recalls are of all edges."""
    import pynndescent

    n, array = len(vectors), vectors.astype(np.float32)
    true = self_join(torch.from_numpy(vectors), K, block=BLOCK, cutoff=CUTOFF).neighbours.ids.numpy()
    config = GraphKnnConfig(k=K, cutoff=CUTOFF, method="approximate", recall=RECALL, block=BLOCK)
    made: dict[str, npt.NDArray[np.int64]] = {}

    def ours() -> None:
        made["ours"] = approximate_join(vectors, np.arange(n), config, lambda *numbers: None)[0].neighbours.ids.numpy()

    def descent() -> None:
        index = pynndescent.NNDescent(array, metric="dot", n_neighbors=K + 1, random_state=0, n_jobs=1)
        made["pynndescent"] = index.neighbor_graph[0]

    def hnsw() -> None:
        index = faiss.IndexHNSWFlat(array.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
        index.add(array)
        index.hnsw.efSearch = 128
        made["HNSW16"] = index.search(array, K + 1)[1]

    pynndescent.NNDescent(array[:2000], metric="dot", n_neighbors=K + 1, random_state=0, n_jobs=1)  # compiles
    works = {"ours": ours, "pynndescent": descent, "HNSW16": hnsw}
    rounds = [{name: spent(works[name]) for name in ("ours", "pynndescent")} for _ in range(3)]
    costs = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    costs["HNSW16"] = spent(hnsw)
    recalls = {name: recall(true, ids) for name, ids in made.items()}
    good = [name for name in ("pynndescent", "HNSW16") if recalls[name] >= RECALL] or ["pynndescent"]
    best = min(good, key=lambda name: costs[name])
    said = ", ".join(f"{name} {costs[name]:.1f} s at {recalls[name]:.4f}" for name in costs)
    yield Figure(f"approximate graph / {best}, n = {n:,} ({said})", costs["ours"], costs[best], 0.60)
    yield Figure("approximate graph: missing edges", 1 - recalls["ours"], 1 - RECALL, 1.0, "of all")


def recall(true: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> float:
    """Share of the true edges that were found."""
    hits = sum(len(np.intersect1d(a[a >= 0], b)) for a, b in zip(true, found, strict=True))
    return hits / int((true >= 0).sum())
