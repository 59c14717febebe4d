"""What the graph's page tells: components, pairs, entropies, pictures with near captions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from xclr.captions.text import shortened
from xclr.graph.neighbours import NEAR_DUPLICATE, Halves
from xclr.images import read_pictures, usable_rows
from xclr.report.html import thumbnail

BATCH_ROWS = 1 << 14  # of the graph, read at once
LISTED = 40  # pairs of a table
SHOWN, NEIGHBOURS, SIDE = 120, 6, 64  # pictures of the sheet, their neighbours, pixels of a thumbnail
ANCHORS = 128
BATCHES = (256, 1024, 4096)
TEMPERATURES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
DEFAULT_TEMPERATURE = 0.1
GROUPS = 8  # largest components that are named
PAIRS_DRAWN = 100_000
PAIRS_READ = 10_000  # at once
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class SampledPairs(NamedTuple):
    """Pairs of captions: row ids [m, 2], the smaller first, and similarities [m], the largest first."""

    rows: Ints
    sims: Floats

    @classmethod
    def none(cls) -> SampledPairs:
        return cls(np.empty((0, 2), np.int64), np.empty(0, np.float32))

    def best(self, other: SampledPairs) -> SampledPairs:
        """The LISTED most similar pairs of both, each once."""
        rows, first = np.unique(np.concatenate([self.rows, other.rows]), axis=0, return_index=True)
        sims = np.concatenate([self.sims, other.sims])[first]
        order = np.lexsort((rows[:, 1], rows[:, 0], -sims))[:LISTED]
        return SampledPairs(rows[order], sims[order])


@dataclass(frozen=True)
class Graph:
    """What one reading of graph_knn.parquet gives: nodes [n], counts [n], nearest [n], and of all edges kept."""

    nodes: Ints
    counts: Ints
    nearest: Floats  # NaN without a neighbour
    components: Ints  # [n], which one a node is in
    duplicates: SampledPairs  # above NEAR_DUPLICATE
    similar: SampledPairs  # the most similar of the others
    histogram: Ints  # of the edges' similarities, over BINS


BINS = np.linspace(-1, 1, 101)


def read(path: Path) -> Graph:
    """Go once through the graph; memory is that of its edges' ends, 4 bytes each."""
    file = pq.ParquetFile(path)
    nodes = file.read(columns=["src"])["src"].to_numpy()
    counts, nearest, tails, heads = [], [], [], []
    duplicates, similar, histogram = SampledPairs.none(), SampledPairs.none(), np.zeros(len(BINS) - 1, np.int64)
    for src, dst, sim, count in _batches(file):
        there = dst >= 0
        tail, head, sims = np.repeat(src, there.sum(1)), dst[there], sim[there]
        ends = np.sort(np.stack([tail, head], 1), axis=1)
        histogram += np.histogram(sims, BINS)[0]
        near = sims > NEAR_DUPLICATE
        duplicates = duplicates.best(_most(ends[near], sims[near]))
        similar = similar.best(_most(ends[~near], sims[~near]))
        counts.append(count)
        nearest.append(np.where(there[:, 0], sim[:, 0], np.nan))
        tails.append(np.searchsorted(nodes, tail).astype(np.int32))
        heads.append(np.searchsorted(nodes, head).astype(np.int32))
    return Graph(
        nodes, np.concatenate(counts).astype(np.int64), np.concatenate(nearest).astype(np.float32),
        components(len(nodes), np.concatenate(tails), np.concatenate(heads)), duplicates, similar, histogram,
    )  # fmt: skip


def _batches(file: pq.ParquetFile) -> Iterator[tuple[Ints, Ints, Floats, Ints]]:
    """src [m], dst [m, k], sim [m, k] and count [m]."""
    for batch in file.iter_batches(BATCH_ROWS):
        rows = len(batch)
        dst, sim = (batch[name].flatten().to_numpy(zero_copy_only=False).reshape(rows, -1) for name in ("dst", "sim"))
        yield batch["src"].to_numpy(), dst, sim, batch["count"].to_numpy()


def _most(ends: Ints, sims: Floats) -> SampledPairs:
    """The most similar of some edges, of which a pair may have two."""
    most = min(2 * LISTED, len(sims))
    chosen = np.argpartition(-sims, most - 1)[:most] if most else np.empty(0, np.int64)
    return SampledPairs(ends[chosen], sims[chosen])


def components(nodes: int, tails: npt.NDArray[np.int32], heads: npt.NDArray[np.int32]) -> Ints:
    """Which connected component of the kept edges each node is in, numbered from 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(tails), np.int8), (tails, heads)), shape=(nodes, nodes))
    return np.asarray(connected_components(edges.tocsr(), directed=False)[1], dtype=np.int64)


def target_entropies(stored: Halves, nodes: Ints, seed: int) -> dict[int, npt.NDArray[np.float64]]:
    """Mean entropy in nats of X-CLR's targets, at each of TEMPERATURES, by the samples of a batch.

    A target is the softmax over the 2B - 1 views of a batch beside the anchor: each other sample twice, the anchor's
    own other view once. Batches larger than the graph are left out, except that the smallest shrinks to it.
    """
    rng = np.random.default_rng(seed)
    sizes = [size for size in BATCHES if size <= len(nodes)] or [len(nodes)]
    found = {}
    for size in sizes:
        rows = np.sort(rng.choice(nodes, size, replace=False))
        vectors = stored[rows].astype(np.float32)
        anchors = rng.choice(size, min(ANCHORS, size), replace=False)
        sims = np.clip(vectors[anchors] @ vectors.T, -1, 1).astype(np.float64)
        weights = np.full(sims.shape, 2.0)
        weights[np.arange(len(anchors)), anchors] = 1.0
        found[size] = np.array([_entropy(sims / tau, weights).mean() for tau in TEMPERATURES])
    return found


def _entropy(logits: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Entropy of softmaxes in which a cell stands for as many candidates as its weight says."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    mass = weights * np.exp(shifted)
    total = mass.sum(axis=1, keepdims=True)
    entropy: npt.NDArray[np.float64] = np.log(total[:, 0]) - (mass / total * shifted).sum(axis=1)
    return entropy


def drawn_pairs(stored: Halves, nodes: Ints, seed: int) -> Ints:
    """Histogram over BINS of the similarities of random pairs of different captions."""
    left, right = drawn_ends(len(nodes), seed)
    histogram: Ints = np.histogram(cosines_of(stored, nodes[left], nodes[right]), BINS)[0]
    return histogram


def drawn_ends(count: int, seed: int) -> tuple[Ints, Ints]:
    """The ends of random pairs of different numbers below `count`, two arrays [PAIRS_DRAWN]."""
    rng = np.random.default_rng(seed)
    left = rng.integers(count, size=PAIRS_DRAWN)
    return left, (left + rng.integers(1, count, size=PAIRS_DRAWN)) % count


def cosines_of(stored: Halves, left: Ints, right: Ints) -> Floats:
    """The cosines of pairs of unit rows, [m]."""
    found = np.empty(len(left), np.float32)
    for start in range(0, len(left), PAIRS_READ):
        part = slice(start, start + PAIRS_READ)
        a, b = (stored[each[part]].astype(np.float32) for each in (left, right))
        found[part] = np.clip((a * b).sum(1), -1, 1)
    return found


class Group(NamedTuple):
    """A connected component: how many captions it has, and a few of them."""

    size: int
    rows: Ints


def largest(graph: Graph, examples: int = 4) -> list[Group]:
    """The largest components with more than one caption, each with captions at even distances."""
    sizes = np.bincount(graph.components)
    chosen = np.argsort(-sizes, kind="stable")[:GROUPS]
    groups = []
    for number in chosen[sizes[chosen] > 1]:
        members = graph.nodes[graph.components == number]
        groups.append(Group(len(members), members[np.unique(np.linspace(0, len(members) - 1, examples).astype(int))]))
    return groups


class Neighbourhood(NamedTuple):
    """A picture of the sheet and its neighbours: rows [1 + m], the picture's own first, and similarities [m]."""

    rows: Ints
    sims: Floats


def sheet(paths: dict[str, Path], nodes: Ints, seed: int) -> list[Neighbourhood]:
    """Up to SHOWN pictures with neighbours that have pictures too, drawn over all nodes."""
    usable = usable_rows(paths["images"])
    with_picture = nodes[np.isin(nodes, usable)]
    if len(with_picture) < 2:
        return []
    asked = np.sort(np.random.default_rng(seed).choice(with_picture, min(4 * SHOWN, len(with_picture)), replace=False))
    edges = ds.dataset(paths["graph"] / "graph_knn.parquet").to_table(filter=pc.field("src").isin(pa.array(asked)))
    questions = []
    for row in edges.sort_by("src").to_pylist():
        rows, sims = np.array(row["dst"]), np.array(row["sim"], np.float32)
        shown = np.flatnonzero(np.isin(rows, usable, assume_unique=True))[:NEIGHBOURS]  # pads are in no table
        if len(shown):
            questions.append(Neighbourhood(np.array([row["src"], *rows[shown]]), sims[shown]))
    return questions[:: max(1, len(questions) // SHOWN)][:SHOWN]


def captions_of(captions: Path, rows: Ints) -> dict[int, str]:
    """The captions of some rows, as far as a page shows them."""
    wanted = pc.field("row_id").isin(pa.array(np.unique(rows)))
    found = ds.dataset(captions / "captions.parquet").to_table(columns=["row_id", "caption"], filter=wanted)
    return dict(zip(found["row_id"].to_pylist(), map(shortened, found["caption"].to_pylist()), strict=True))


def thumbnails(images: Path, questions: Sequence[Neighbourhood]) -> dict[int, str]:
    """Data URIs of every picture that the sheet shows."""
    if not questions:
        return {}
    rows = np.unique(np.concatenate([each.rows for each in questions]))
    return dict(zip(rows.tolist(), map(thumbnail, read_pictures(images, rows, SIDE)), strict=True))


def facts_of(path: Path, graph: Graph, dataset: str) -> dict[str, str]:
    """What a person asks first; from the table's own metadata what it was made with."""
    about = json.loads(pq.read_schema(path).metadata[b"about"])
    config: dict[str, Any] = about["config"]
    edges = int(graph.counts.sum()) // 2
    cutoff = config["cutoff"]
    recall = about.get("measured", {}).get("recall")
    far = f"cosine at least {cutoff:g}" if cutoff is not None else "no cut-off"
    return {
        "data": dataset,
        "captions": f"{len(graph.nodes):,}",
        "pairs" if cutoff is None else "similar pairs": f"{edges:,}",
        "kept": f"{config['k']} nearest, {far}",
        "method": config["method"] + (f", recall {recall:.3f}" if recall is not None else ""),
        "nearest, median": f"{np.nanmedian(graph.nearest):.2f}" if not np.isnan(graph.nearest).all() else "none",
        "without neighbour": f"{np.isnan(graph.nearest).mean():.1%}",
    }
