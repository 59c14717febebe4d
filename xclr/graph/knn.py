"""Exact nearest neighbours by inner product, block by block, with the same bits for every block size and device.

A float32 matrix product finds candidates; the few that can matter are scored again in float64. For half-precision
unit vectors that score is exact: products are multiples of 2^-48 and their sum stays below 2, which 53 bits hold
whatever the order of summation. So ties are true ties, and `block` changes no value. A row whose k-th and next
candidates lie within the float32 rounding of each other (duplicates, mostly) is searched once more without a limit
on the candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

SLACK = 4  # candidates kept beyond k, so that few rows need the second search
RESCAN_ROWS = 256
STRIP_ROWS = 128
SCORE_ELEMENTS = 1 << 18  # numbers gathered at once when pairs are scored: what a core's cache holds
Array = npt.NDArray[Any]
NO_ID = torch.iinfo(torch.int64).max


class TopK(NamedTuple):
    """Neighbours of q rows: descending similarity, ties by smaller id; -1 and NaN pad rows with fewer than k."""

    ids: Tensor  # [q, k] int64
    sims: Tensor  # [q, k] float32


class _Pairs(NamedTuple):
    """Cells of a tile that may matter, sorted by row."""

    rows: Tensor  # [m] int64, within the tile
    cols: Tensor
    sims: Tensor  # [m] float32

    def where(self, condition: Tensor) -> _Pairs:
        keep = condition.nonzero()[:, 0]
        return _Pairs(self.rows[keep], self.cols[keep], self.sims[keep])

    def transposed(self) -> _Pairs:
        order = self.cols.argsort(stable=True)
        return _Pairs(self.cols[order], self.rows[order], self.sims[order])


class _Search(NamedTuple):
    """Candidates so far: the w largest float32 products of each row, descending, and what a new one must reach."""

    ids: Tensor  # [q, w]
    sims: Tensor  # [q, w]
    floor: Tensor  # [q], never above the w-th largest

    @classmethod
    def start(cls, rows: int, width: int, device: torch.device) -> _Search:
        ids = torch.full((rows, width), -1, dtype=torch.int64, device=device)
        sims = torch.full((rows, width), -torch.inf, device=device)
        return cls(ids, sims, torch.full((rows,), -torch.inf, device=device))


def topk(queries: Tensor, keys: Tensor, k: int, *, block: int) -> TopK:
    """The k largest inner products of each query [q, d] with keys [n, d]: ids are positions in `keys`.

    Memory is O(block^2 + block d) beside inputs and outputs. Raises ValueError unless 1 <= k <= n and block >= 1.
    """
    _check(k, len(keys), block)
    error = _rounding(queries, keys, block)
    found = [_topk_block(queries[at], keys, k, block, error) for at in _slices(len(queries), block)]
    empty = _Search.start(0, k, queries.device)
    return TopK(
        torch.cat([empty.ids, *(each.ids for each in found)]), torch.cat([empty.sims, *(s.sims for s in found)])
    )


def merge_topk(a: TopK, b: TopK) -> TopK:
    """The best k of two results over disjoint keys, [q, k] each; associative and commutative.

    Raises ValueError when the shapes differ.
    """
    if a.ids.shape != b.ids.shape:
        raise ValueError(f"cannot merge top-k of shapes {tuple(a.ids.shape)} and {tuple(b.ids.shape)}")
    return best_of(torch.cat([a.ids, b.ids], 1), torch.cat([a.sims, b.sims], 1), a.ids.shape[1])


def self_join(
    vectors: Tensor, k: int, *, block: int, cutoff: float, progress: Callable[[int, int], None] | None = None
) -> tuple[TopK, Tensor]:
    """The k nearest others of each row of vectors [n, d], and count [n] int32 = |{j != i: v_i . v_j >= cutoff}|.

    Each pair of blocks is multiplied once and serves both directions: n^2 d multiplications and additions in place
    of 2 n^2 d. Raises ValueError unless 1 <= k < n and block >= 1.
    """
    n = len(vectors)
    _check(k, n - 1, block)
    error = _rounding(vectors, vectors, block)
    search = _Search.start(n, min(k + SLACK, n - 1), vectors.device)
    count = torch.zeros(n, dtype=torch.int32, device=vectors.device)
    total = (parts := -(-n // block)) * (parts + 1) // 2
    for done, (left, right) in enumerate(_tiles(n, block), start=1):
        pairs = _tile_pairs(vectors, left, right, search, cutoff - error)
        _absorb(search, left, right.start, pairs)
        near = _near(vectors, left, right, pairs, cutoff, error)
        _tally(count, left, near.rows)
        if left != right:
            _absorb(search, right, left.start, pairs.transposed())
            _tally(count, right, near.cols)
        if progress is not None:
            progress(done, total)
    return _settle(search, vectors, vectors, _Scan(k, block, error, own=True)), count


class _Scan(NamedTuple):
    """What the search is for: neighbours, block of keys, bound on the float32 error, is a row its own key."""

    k: int
    block: int
    error: float
    own: bool


def _check(k: int, keys: int, block: int) -> None:
    if k < 1:
        raise ValueError(f"k is {k}, it must be at least 1")
    if k > keys:
        raise ValueError(f"k is {k}, but a row has only {keys} candidates")
    if block < 1:
        raise ValueError(f"block is {block}, it must be at least 1")


def _slices(n: int, block: int) -> Iterator[slice]:
    return (slice(start, min(start + block, n)) for start in range(0, n, block))


def _tiles(n: int, block: int) -> Iterator[tuple[slice, slice]]:
    """Every unordered pair of blocks once, the diagonal first: it gives each row a floor for the rest."""
    blocks = list(_slices(n, block))
    yield from zip(blocks, blocks, strict=True)
    for index, left in enumerate(blocks):
        for right in blocks[index + 1 :]:
            yield left, right


def _rounding(queries: Tensor, keys: Tensor, block: int) -> float:
    """Bound on |float32 product - exact product|: d 2^-23 max|q| max|k| (Higham, Accuracy and Stability, 3.1)."""
    norms = [
        max((float(x[at].float().norm(dim=1).max()) for at in _slices(len(x), block)), default=0.0)
        for x in ((queries,) if queries is keys else (queries, keys))
    ]
    return queries.shape[1] * 2.0**-23 * norms[0] * norms[-1]


def _topk_block(queries: Tensor, keys: Tensor, k: int, block: int, error: float) -> TopK:
    search = _Search.start(len(queries), min(k + SLACK, len(keys)), queries.device)
    rows = slice(0, len(queries))
    left = queries.float()
    for at in _slices(len(keys), block):
        sims = left @ keys[at].float().T
        if at.start == 0:
            search.floor.copy_(_lower_bound(sims, search.ids.shape[1]))
        _absorb(search, rows, at.start, _cells(sims, search.floor, None))
    return _settle(search, queries, keys, _Scan(k, block, error, own=False))


def _tile_pairs(vectors: Tensor, left: slice, right: slice, search: _Search, cutoff: float) -> _Pairs:
    """Cells of one tile that reach the floor of their row or column, or the cut-off."""
    sims = vectors[left].float() @ vectors[right].float().T
    if left == right:
        sims.fill_diagonal_(-torch.inf)
        search.floor[left] = _lower_bound(sims, search.ids.shape[1])
    rows = search.floor[left].clamp_max(cutoff)
    return _cells(sims, rows, None if left == right else search.floor[right].clamp_max(cutoff))


def _lower_bound(sims: Tensor, width: int) -> Tensor:
    """A bound [b] that at least `width` cells of each row of sims [b, B] reach, close to the width-th largest.

    It is the width-th largest of the maxima of disjoint groups of columns, 4 times cheaper than a full top-k.
    """
    rows, columns = sims.shape
    if columns < width:
        return sims.new_full((rows,), -torch.inf)
    size = max(1, columns // (4 * width))
    groups = columns // size
    maxima = sims[:, : size * groups].reshape(rows, size, groups).amax(1)
    return maxima.topk(width, dim=1).values[:, -1]


def _cells(sims: Tensor, rows: Tensor, cols: Tensor | None) -> _Pairs:
    """Cells of sims [b, B] at least rows [b] (or cols [B]); NumPy on the CPU, where it is 5 times faster than torch."""
    width = sims.shape[1]
    if sims.is_cuda:
        mask = sims >= rows[:, None]
        flat = (mask if cols is None else mask | (sims >= cols)).flatten().nonzero()[:, 0]
    else:
        parts = [_strip(sims.numpy(), rows.numpy(), cols, at) for at in _slices(len(sims), STRIP_ROWS)]
        flat = torch.from_numpy(np.concatenate(parts))
    i = flat // width
    found = _Pairs(i, flat - i * width, sims.flatten()[flat])
    return found.where(found.sims > -torch.inf)


def _strip(sims: Array, rows: Array, cols: Tensor | None, at: slice) -> Array:
    """Flat positions of the cells of a few rows, whose masks stay in the cache."""
    above = sims[at] >= rows[at, None]
    if cols is not None:
        above |= sims[at] >= cols.numpy()
    flat: Array = np.flatnonzero(above) + at.start * sims.shape[1]
    return flat


def _absorb(search: _Search, at: slice, offset: int, pairs: _Pairs) -> None:
    """Take the pairs that reach their row's floor into the candidates of the rows `at`; columns start at `offset`."""
    pairs = pairs.where(pairs.sims >= search.floor[at][pairs.rows])
    if not len(pairs.rows):
        return
    rows, ids, sims = _packed(pairs, offset)
    rows += at.start
    width = search.ids.shape[1]
    sims, order = torch.cat([search.sims[rows], sims], 1).topk(width, dim=1)
    search.ids[rows] = torch.cat([search.ids[rows], ids], 1).gather(1, order)
    search.sims[rows] = sims
    search.floor[rows] = torch.maximum(search.floor[rows], sims[:, -1])


def _packed(pairs: _Pairs, offset: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs as (rows [r], ids [r, m], sims [r, m]): one line for each row that has any, padded with -1 and -inf."""
    counts = torch.bincount(pairs.rows)
    rows = counts.nonzero()[:, 0]
    line = ((counts > 0).cumsum(0) - 1)[pairs.rows]
    counts = counts[rows]
    place = torch.arange(len(line), device=line.device) - (counts.cumsum(0) - counts)[line]
    shape = (len(rows), int(counts.max()))
    ids = torch.full(shape, -1, dtype=torch.int64, device=line.device)
    sims = torch.full(shape, -torch.inf, device=line.device)
    ids[line, place] = pairs.cols + offset
    sims[line, place] = pairs.sims
    return rows, ids, sims


def _near(vectors: Tensor, left: slice, right: slice, pairs: _Pairs, cutoff: float, error: float) -> _Pairs:
    """The pairs whose exact similarity is at least the cut-off."""
    pairs = pairs.where(pairs.sims >= cutoff - error)
    doubtful = (pairs.sims <= cutoff + error).nonzero()[:, 0]
    rows, ids = pairs.rows[doubtful] + left.start, pairs.cols[doubtful] + right.start
    pairs.sims[doubtful] = _scores(vectors, rows, vectors, ids[:, None])[:, 0]
    return pairs.where(pairs.sims >= cutoff)


def _tally(count: Tensor, at: slice, members: Tensor) -> None:
    count[at] += torch.bincount(members, minlength=at.stop - at.start).int()


def _scores(queries: Tensor, rows: Tensor, keys: Tensor, ids: Tensor) -> Tensor:
    """Inner products [r, m] of queries[rows] with keys[ids], ids [r, m]: summed in float64, NaN for -1."""
    scores = torch.full(ids.shape, torch.nan, device=ids.device)
    step = max(1, SCORE_ELEMENTS // max(1, ids.shape[1] * keys.shape[1]))
    for at in _slices(len(ids), step):
        own, other = rows[at], ids[at].clamp_min(0)
        if ids.is_cuda:
            scores[at] = torch.einsum("rd,rmd->rm", queries[own].double(), keys[other].double()).float()
        else:
            left, right = _rows(queries, own).numpy(), _rows(keys, other).numpy()
            scores.numpy()[at] = np.einsum("rd,rmd->rm", left, right, dtype=np.float64)
    return scores.masked_fill_(ids < 0, torch.nan)


def _rows(vectors: Tensor, ids: Tensor) -> Tensor:
    """vectors[ids] as float32; NumPy copies rows of halves 5 times faster than torch, torch converts them faster."""
    return torch.from_numpy(np.take(vectors.numpy(), ids.numpy(), axis=0)).float()


def best_of(ids: Tensor, sims: Tensor, k: int) -> TopK:
    """The first k of each row by (similarity descending, id ascending), pads last."""
    ids, order = torch.where(ids < 0, NO_ID, ids).sort(dim=1)
    sims = sims.gather(1, order).masked_fill_(ids == NO_ID, -torch.inf)
    sims, order = sims.sort(dim=1, descending=True, stable=True)
    ids = ids.gather(1, order)[:, :k]
    pads = ids == NO_ID
    return TopK(ids.masked_fill(pads, -1), sims[:, :k].masked_fill(pads, torch.nan))


def _settle(search: _Search, queries: Tensor, keys: Tensor, scan: _Scan) -> TopK:
    """Score candidates exactly: k of each row, all where that leaves doubt, every key where that does too."""
    rows = torch.arange(len(queries), device=queries.device)
    k, width = scan.k, search.ids.shape[1]
    result = TopK(*(each[:, :k].clone() for each in search[:2]))
    for tried in (k, width):
        ids = search.ids[rows, :tried]
        found = best_of(ids, _scores(queries, rows, keys, ids), k)
        result.ids[rows], result.sims[rows] = found
        left_out = search.sims[rows, min(tried, width - 1)]
        complete = tried == len(keys) - scan.own
        rows = rows[(left_out + scan.error >= found.sims[:, -1]) & (not complete)]
    for at in _slices(len(rows), RESCAN_ROWS):
        again = rows[at]
        result.ids[again], result.sims[again] = _rescan(queries, again, keys, result.sims[again, -1], scan)
    return result


def _rescan(queries: Tensor, rows: Tensor, keys: Tensor, kth: Tensor, scan: _Scan) -> TopK:
    """The k best of queries[rows] over all keys: every key that may reach `kth` [r], a bound, is scored exactly."""
    k = scan.k
    best = TopK(*_Search.start(len(rows), k, keys.device)[:2])
    best.sims.fill_(torch.nan)
    left = queries[rows].float()
    for at in _slices(len(keys), scan.block):
        sims = left @ keys[at].float().T
        if scan.own:
            sims.masked_fill_(rows[:, None] == torch.arange(at.start, at.stop, device=keys.device), -torch.inf)
        pairs = _cells(sims, kth - scan.error, None)
        if len(pairs.rows):
            lines, ids, _ = _packed(pairs, at.start)
            scores = _scores(queries, rows[lines], keys, ids)
            both = torch.cat([best.ids[lines], ids], 1), torch.cat([best.sims[lines], scores], 1)
            best.ids[lines], best.sims[lines] = best_of(*both, k)
    return best
