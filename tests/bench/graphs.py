"""Exact and approximate graphs beside FAISS and pynndescent, on clustered vectors and on real captions.

The real ones are 200,000 texts of WordNet, embedded once into .bench/words.npy: ten minutes of both cores. Their
figures are medians of three rounds in turn, HNSW's of one, since it takes a minute and a half.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
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
from xclr.graph.stages import GraphKnnConfig
from xclr.graph.textmodel import locate

SIZES = (16_384, 32_768)
K, CUTOFF, BLOCK = 32, 0.6, 2048
WORDS, RECALL = 200_000, 0.99
STORED = Path(".bench") / "words.npy"
CHUNK = 4096
Halves = npt.NDArray[np.float16]
Ints = npt.NDArray[np.int64]


def figures() -> Iterator[Figure]:
    faiss.omp_set_num_threads(1)
    for n in SIZES:
        yield from exact(n)
    yield from approximate()


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


def approximate() -> Iterator[Figure]:
    """The cost at a recall of 0.99 beside the best peer that reaches it; recalls are of all edges.

    Each runs in a process of its own: numba's threads, which pynndescent starts, wait in loops that count.
    """
    words(WORDS)  # made where they are not there
    found = {name: alone(name) for name in WAYS}
    good = [name for name in list(WAYS)[1:] if found[name]["recall"] >= RECALL] or ["pynndescent"]
    best = min(good, key=lambda name: found[name]["cpu_s"])
    said = ", ".join(f"{name} {each['cpu_s']:.1f} s at {each['recall']:.4f}" for name, each in found.items())
    ours = found["ours"]
    yield Figure(f"approximate graph / {best}, n = {WORDS:,} ({said})", ours["cpu_s"], found[best]["cpu_s"], 0.60)
    yield Figure("approximate graph: missing edges", 1 - ours["recall"], 1 - RECALL, 1.0, "of all")


def alone(name: str) -> dict[str, float]:
    """CPU seconds, the median of ROUNDS[name], and the recall."""
    command = [sys.executable, "-m", "tests.bench.graphs", name]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return dict(json.loads(done.stdout))


def ours(vectors: Halves) -> Ints:
    config = GraphKnnConfig(k=K, cutoff=CUTOFF, method="approximate", recall=RECALL, block=BLOCK)
    return approximate_join(vectors, np.arange(len(vectors)), config, lambda *numbers: None)[0].neighbours.ids.numpy()


def descent(vectors: Halves) -> Ints:
    import pynndescent

    array = vectors.astype(np.float32)
    index = pynndescent.NNDescent(array, metric="dot", n_neighbors=K + 1, random_state=0, n_jobs=1)
    return index.neighbor_graph[0]


def hnsw(vectors: Halves) -> Ints:
    array = vectors.astype(np.float32)
    index = faiss.IndexHNSWFlat(array.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.add(array)
    index.hnsw.efSearch = 128
    return index.search(array, K + 1)[1]


WAYS: dict[str, Callable[[Halves], Ints]] = {"ours": ours, "pynndescent": descent, "HNSW16": hnsw}
ROUNDS = {"ours": 3, "pynndescent": 3, "HNSW16": 1}  # a round of the last takes a minute and a half


def measure(name: str) -> None:
    """Print what one way costs and finds."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    vectors, way = words(WORDS), WAYS[name]
    way(vectors[:2000])  # compiles
    took = [spent(lambda: way(vectors)) for _ in range(ROUNDS[name])]
    true = self_join(torch.from_numpy(vectors), K, block=BLOCK, cutoff=CUTOFF).neighbours.ids.numpy()
    print(json.dumps({"cpu_s": statistics.median(took), "recall": recall(true, way(vectors))}))


def recall(true: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> float:
    """Share of the true edges that were found."""
    hits = sum(len(np.intersect1d(a[a >= 0], b)) for a, b in zip(true, found, strict=True))
    return hits / int((true >= 0).sum())


if __name__ == "__main__":
    measure(sys.argv[1])
