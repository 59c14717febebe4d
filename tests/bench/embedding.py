"""Encoding captions beside sentence-transformers' own loop, and what the vectors are read with."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests.bench.measure import Figure, compare, spent
from tests.bench.words import texts
from xclr import schema
from xclr.graph import SentenceEncoder
from xclr.graph.embed import table
from xclr.graph.textmodel import locate

CAPTIONS, EVERY = 1024, 190  # a chunk of captions, drawn from all of WordNet's texts
ROWS, WIDTH, BATCH, BATCHES = 400_000, 384, 1024, 50


def figures() -> Iterator[Figure]:
    yield from encoding()
    with tempfile.TemporaryDirectory() as folder:
        yield from reading(Path(folder))


def encoding() -> Iterator[Figure]:
    """encode(batch_size=32) at float32; what other precisions take, and what they lose."""
    captions = [text for _, text in texts(CAPTIONS * EVERY)[::EVERY]]
    folder = locate("sentence-transformers/all-MiniLM-L6-v2")
    ours = SentenceEncoder(folder)

    def peer() -> np.ndarray:
        return ours.model.encode(captions, batch_size=32, normalize_embeddings=True, show_progress_bar=False)

    yield compare("embedding, float32 / sentence-transformers", lambda: ours.encode(captions), peer, 1 / 1.3, rounds=3)
    exact = peer()
    ours.tokens = ours.padded = 0
    lost = 1 - (ours.encode(captions) * exact).sum(1)
    yield Figure("embedding: largest 1 - cos", float(lost.max()), 1e-5, 1.0, "")
    yield Figure("embedding: padded tokens / real ones", ours.padded, ours.tokens, 1 / 0.97, "tokens")
    for precision in ("bfloat16", "int8"):
        low = SentenceEncoder(folder, precision)
        mean = float((1 - (low.encode(captions) * exact).sum(1)).mean())
        name = f"embedding, {precision} (1 - cos {mean:.1e}) / sentence-transformers"
        yield compare(name, lambda low=low: low.encode(captions), peer, 1 / 1.3, rounds=3)


def reading(folder: Path) -> Iterator[Figure]:
    """Random rows of the memory-mapped file against rows in memory; and seconds a GB of the Parquet file."""
    vectors = np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float16)
    vectors /= np.linalg.norm(vectors.astype(np.float32), axis=1, keepdims=True).astype(np.float16)
    np.save(folder / "vectors.npy", vectors)
    mapped = np.load(folder / "vectors.npy", mmap_mode="r")
    rows = np.random.default_rng(1).integers(0, ROWS, (BATCHES, BATCH))

    def gather(source: np.ndarray) -> None:
        for batch in rows:
            source[batch]

    yield compare("1,024 random rows, mapped / in memory", lambda: gather(mapped), lambda: gather(vectors), 1 / 0.7)
    path = folder / "embeddings.parquet"
    schema.write(table(vectors), path, schema.embeddings(WIDTH), {})

    took = statistics.median(spent(lambda: pq.read_table(path, use_threads=False)) for _ in range(5))
    yield Figure("Parquet of vectors: a GB, against 0.3 GB/s", took / (vectors.nbytes / 1e9), 1 / 0.3, 1.0)
