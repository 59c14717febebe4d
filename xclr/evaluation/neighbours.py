"""Nearest pictures by the cosine of frozen features: what a table of scores cannot show."""

from __future__ import annotations

from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from xclr.evaluation.data import ROWS, VECTORS, FeatureSet, Ints
from xclr.graph import topk

SPLITS = ("pictures", "concepts")  # where pictures to ask for come from, the first that there is
LAST = 200  # rows to choose from when nothing was held out
POOL = 100_000  # pictures that are searched, so that millions of them stay a matter of seconds
BLOCK = 4096


class Neighbours(NamedTuple):
    """The nearest pictures of q others: row ids int64 [q, k] and cosines float32 [q, k], descending."""

    rows: Ints
    cosines: NDArray[np.float32]


def choose_queries(rows: Ints, split: NDArray[np.str_], target: Ints, count: int) -> tuple[str, Ints]:
    """A split and at most `count` of its rows, spread over the classes; the same ones at every call.

    rows [n] are those with features; split and target [N] are by row, a target of -1 is none. The split is the first
    of SPLITS that has rows; without one it is "" and the last LAST rows are chosen from.
    """
    for name in SPLITS:
        held_out = rows[split[rows] == name]
        if len(held_out):
            return name, _spread(held_out, target[held_out], count)
    return "", _spread(rows[-LAST:], target[rows[-LAST:]], count)


def _spread(rows: Ints, target: Ints, count: int) -> Ints:
    """One row of each of `count` classes evenly spaced, then a second one of each; without classes, spaced rows."""
    classes = np.unique(target[target >= 0])
    if not len(classes):
        return rows[_spaced(len(rows), count)]
    members = [rows[target == each].tolist() for each in classes[_spaced(len(classes), count)]]
    turns = (row for row in chain.from_iterable(zip_longest(*members)) if row is not None)
    return np.array(list(islice(turns, count)), dtype=np.int64)


def _spaced(n: int, count: int) -> Ints:
    """At most `count` of the positions 0..n-1, evenly spaced, each once."""
    return np.linspace(0, n - 1, min(n, count)).round().astype(np.int64)


def load_pool(features: Path, queries: Ints, limit: int = POOL) -> FeatureSet:
    """Features of the queries and of `limit` other pictures evenly spaced, or of all where there are fewer."""
    rows = np.load(features / ROWS, mmap_mode="r")
    vectors = np.load(features / VECTORS, mmap_mode="r")
    chosen = np.union1d(_spaced(len(rows), limit), np.searchsorted(rows, queries))
    return FeatureSet(np.asarray(rows[chosen]), np.asarray(vectors[chosen], dtype=np.float32))


def nearest(pool: FeatureSet, queries: Ints, k: int) -> Neighbours:
    """The k pictures of the pool nearest to each query [q] of it, itself left out; fewer where the pool is small.

    Equal cosines are ordered by row id.
    """
    unit = F.normalize(torch.from_numpy(pool.vectors), dim=1)
    asked = unit[torch.from_numpy(np.searchsorted(pool.rows, queries))]
    k = min(k, len(pool.rows) - 1)
    found = topk(asked, unit, k + 1, block=BLOCK)
    rows = pool.rows[found.ids.numpy()]
    others = np.argsort(rows == queries[:, None], axis=1, kind="stable")[:, :k]  # itself goes last
    return Neighbours(np.take_along_axis(rows, others, 1), np.take_along_axis(found.sims.numpy(), others, 1))
