"""The approximate twin of the exact graph: only captions in near cells are compared.

FAISS's k-means cuts the captions into cells. A caption looks into the cells whose centre is at least `reach` times as
similar to it as that of its own, and a pair is compared when one of the two looks into the other's cell: in tiles of a
cell and all that look into it, and then as exactly as in the exact graph. Which reach the recall needs follows from a
sample's true edges before anything else is compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
import torch

from xclr.graph.knn import Joined, Once, TopK, cross_join, pairs_join
from xclr.graph.stages import GraphKnnConfig
from xclr.stage import Progress

CELLS = 2.0  # times the root of the number of captions
TRAINED_ON, ROUNDS = 32, 5  # captions a cell and rounds of k-means
SAMPLE = 2000  # captions whose true neighbours tell how many cells to look into
BLOCK = 8192  # captions whose near cells are looked up at once
SEED = 0
LEAST = 1e-6  # similarity to the own centre

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]


class Cells(NamedTuple):
    """Captions in the order of their cells, and who looks into which."""

    order: Ints  # [n]
    begins: Ints  # [c + 1]: where a cell begins in that order
    lookers: Ints  # [m]: places in that order, cell by cell
    ends: Ints  # [c + 1]: where a cell's lookers begin
    looks: Ints  # [m]: place * c + cell, ascending


def approximate_join(
    stored: Halves, rows: Ints, config: GraphKnnConfig, progress: Progress
) -> tuple[Joined, dict[str, Any]]:
    """The k nearest others of each of stored[rows] as far as they are found, and {recall, cells, probes}.

    Counts are of neighbours found and kept, so at most k. The recall is that of the sample, `probes` how many cells a
    caption looks into in the mean.
    """
    assert config.recall is not None
    vectors = stored[rows]
    centres = _centres(vectors)
    reach, recall = _reach(vectors, centres, config)
    layout = _layout(vectors, centres, reach)
    ordered = torch.from_numpy(vectors[layout.order])
    found = pairs_join(ordered, _tiles(layout, progress), config.k, cutoff=config.cutoff, once=_once(layout))
    whole = _in_order(found, layout.order)
    counts = (whole.ids >= 0).sum(1).int()
    probes = len(layout.lookers) / len(vectors)
    return Joined(whole, counts), {"recall": recall, "cells": len(centres), "probes": probes}


def _centres(vectors: Halves) -> Floats:
    """Unit centres [c, d] of cells, by k-means of a sample."""
    n, dim = vectors.shape
    faiss.omp_set_num_threads(torch.get_num_threads())
    cells = max(1, round(CELLS * math.sqrt(n)))
    kmeans = faiss.Kmeans(dim, cells, niter=ROUNDS, seed=SEED, spherical=True, min_points_per_centroid=1)
    sample = np.random.default_rng(SEED).permutation(n)[: TRAINED_ON * cells]
    kmeans.train(vectors[np.sort(sample)].astype(np.float32))
    return np.asarray(kmeans.centroids, dtype=np.float32)


def _reach(vectors: Halves, centres: Floats, config: GraphKnnConfig) -> tuple[float, float]:
    """The largest reach at which a sample has the recall, and what that is then."""
    left, right = _true_edges(vectors, config)
    if not len(left):
        return 1.0, 1.0
    rows, number = np.unique(left, return_inverse=True)
    whole = len(vectors) <= SAMPLE
    chosen = (number % 2 == 0) | whole  # half of a sample chooses, the other half is measured
    ends, place = np.unique(np.concatenate([left, right]), return_inverse=True)
    tails, heads = place[: len(left)], place[len(left) :]
    near = np.concatenate([each for _, each in _nearness(vectors[ends], centres)])
    cells = near.argmax(1)
    reaches = np.maximum(near[tails, cells[heads]], near[heads, cells[tails]])
    wanted = float(config.recall or 1)
    error = 0.0 if whole else math.sqrt(wanted * (1 - wanted) * 2 / len(rows))  # of the half's own recall
    reach = min(1.0, float(np.quantile(reaches[chosen], max(0.0, 1 - wanted - error / 2), method="lower")))
    measured = reaches if whole or chosen.all() else reaches[~chosen]
    return reach, float((measured >= reach).mean())


def _true_edges(vectors: Halves, config: GraphKnnConfig) -> tuple[Ints, Ints]:
    """Both ends of the exact edges of a sample, which is searched for among all."""
    rows = np.sort(np.random.default_rng(SEED + 1).permutation(len(vectors))[:SAMPLE])
    both = torch.from_numpy(np.concatenate([vectors[rows], vectors]))
    k = min(config.k + 1, len(vectors))  # itself among them
    found = cross_join(both, len(rows), k, block=config.block, cutoff=config.cutoff)[0].neighbours.ids.numpy()
    edge = (found >= 0) & (found != rows[:, None])
    return np.repeat(rows, edge.sum(1)), found[edge]


def _nearness(vectors: Halves, centres: Floats) -> Iterator[tuple[slice, Floats]]:
    """How similar each caption is to each centre [b, c], as a share of the largest: 1 for its own cell."""
    whole = torch.from_numpy(centres).T
    for start in range(0, len(vectors), BLOCK):
        at = slice(start, min(start + BLOCK, len(vectors)))
        sims = torch.from_numpy(vectors[at]).float() @ whole
        yield at, (sims / sims.amax(1, keepdim=True).clamp_min(LEAST)).numpy()


def _layout(vectors: Halves, centres: Floats, reach: float) -> Cells:
    """Order captions by cell, and tell for each cell who looks into it."""
    cells, pairs = np.empty(len(vectors), np.int64), []
    for at, near in _nearness(vectors, centres):
        cells[at] = near.argmax(1)
        near[np.arange(len(near)), cells[at]] = np.inf  # always into its own
        flat = np.flatnonzero(near >= reach)
        pairs.append(flat + at.start * len(centres))
    order = np.argsort(cells, kind="stable")
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    rows, into = np.divmod(np.concatenate(pairs), len(centres))
    looks = np.sort(places[rows] * len(centres) + into)
    rows, into = np.divmod(looks, len(centres))
    by_cell, numbers = np.argsort(into, kind="stable"), np.arange(len(centres) + 1)
    return Cells(
        order, np.searchsorted(cells[order], numbers), rows[by_cell], np.searchsorted(into[by_cell], numbers), looks
    )


def _tiles(layout: Cells, progress: Progress) -> Iterator[tuple[torch.Tensor, slice]]:
    """Each cell, and all captions that look into it."""
    cells = len(layout.begins) - 1
    for cell in range(cells):
        members = slice(int(layout.begins[cell]), int(layout.begins[cell + 1]))
        if members.stop > members.start:
            yield torch.from_numpy(layout.lookers[layout.ends[cell] : layout.ends[cell + 1]]), members
        progress(cell + 1, cells)


def _once(layout: Cells) -> Once:
    """A pair of which both look into the other's cell counts where the first one looks into the second's."""
    number = len(layout.begins) - 1
    cells = np.repeat(np.arange(number), np.diff(layout.begins))

    def counts(rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        first, second = rows.numpy(), ids.numpy()
        back = second * number + cells[first]
        place = np.searchsorted(layout.looks, back).clip(max=len(layout.looks) - 1)
        return torch.from_numpy((first < second) | (layout.looks[place] != back))

    return counts


def _in_order(found: TopK, order: Ints) -> TopK:
    """Rows and ids of the layout become those of the captions; ties are ordered again by the caller."""
    ids, sims = torch.empty_like(found.ids), torch.empty_like(found.sims)
    places = torch.from_numpy(order)
    ids[places] = torch.where(found.ids < 0, -1, places[found.ids.clamp_min(0)])
    sims[places] = found.sims
    return TopK(ids, sims)
