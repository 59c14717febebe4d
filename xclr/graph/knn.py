"""Exact nearest neighbours by inner product, block by block, with the same bits for every block size and device.

A matrix product in the fastest precision that the device has finds candidates: cells that, within the bound on its
error, may be among the best. Only these are scored, in float64. For half-precision unit vectors that score is exact:
products are multiples of 2^-48 and their sum stays below 2, which 53 bits hold whatever the order of summation. So ties
are true ties, and neither `block` nor the precision of the product changes a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BLOCK = {"cpu": 2048, "cuda": 1 << 14}  # rows of a tile: what fits the memory, and gives a GPU enough to do
SCORE_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 25}  # numbers gathered at once to score pairs: what a core's cache holds
GROUP = 32  # cells of a row of which a GPU looks at the largest first
DENSE = 16  # a tile of whose cells more than this part are candidates is scored as a whole
PENDING = 1  # new edges, as a multiple of those kept, after which the worse ones are dropped
Array = npt.NDArray[Any]
Report = Callable[[int, int], None]  # tiles done, tiles in all
NORMED_ROWS = 8192
INT8, TINY = 127, 1e-30
NARROW = 16  # rows narrower than that are not worth int8, whose product is wrong for single numbers (torch 2.14)
NO_ID = torch.iinfo(torch.int64).max


class TopK(NamedTuple):
    """Neighbours of q rows: descending similarity, ties by smaller id; -1 and NaN pad rows with fewer than k."""

    ids: Tensor  # [q, k] int64
    sims: Tensor  # [q, k] float32


class Joined(NamedTuple):
    """Neighbours of n rows, and how many there are: counts [n] int32, which may exceed k."""

    neighbours: TopK
    counts: Tensor


class _Edges(NamedTuple):
    """Directed edges; with k of them a row they are most of the memory."""

    rows: Tensor  # [m] int32
    ids: Tensor  # [m] int32
    sims: Tensor  # [m] float32

    def where(self, condition: Tensor) -> _Edges:
        keep = condition.nonzero()[:, 0]
        return _Edges(self.rows[keep], self.ids[keep], self.sims[keep])

    def both_ways(self) -> _Edges:
        rows, ids = torch.cat([self.rows, self.ids]), torch.cat([self.ids, self.rows])
        return _Edges(rows, ids, self.sims.repeat(2))


Rows = slice | Tensor  # a block of rows, or rows picked from all
Least = float | tuple[Tensor, Tensor | None]  # what cells must reach: a number, or the lesser of a row's and a column's
Once = Callable[[Tensor, Tensor], Tensor]  # which pairs (rows [m], ids [m]) of a tile count: bool [m]


class _Fast(NamedTuple):
    """How candidates are found: rows in the precision of the product (None: made of a block when it is needed)."""

    rows: Tensor | None
    scale: float  # of the product
    error: float  # bound on that of the product


class _Task(NamedTuple):
    """A search: rows of `left` and of `right` in pairs of blocks, and what counts as a neighbour.

    In a join both are the same tensor, and an edge found serves both of its ends.
    """

    left: Tensor
    right: Tensor
    k: int
    cutoff: float | None
    fast: _Fast
    joins: bool
    once: Once | None = None


class _Search:
    """The best edges so far of each row, at most k of them sorted, before new ones that may not be among the best.

    All lie in tensors that are made once: many small ones between the large ones of tiles would keep glibc from giving
    memory back (12 kB a row were measured).
    """

    def __init__(self, rows: int, task: _Task, device: torch.device) -> None:
        self.k, self.joins = task.k, task.joins
        self.counted = task.joins and task.cutoff is not None and task.once is None
        self.least = -torch.inf if task.cutoff is None else task.cutoff
        self.floor = torch.full((rows,), self.least, device=device)  # what a new edge must reach: exact, never too high
        self.raised = False  # above the cut-off, which edges have passed
        self.floored: set[int] = set()  # first rows of the blocks that have one
        self.counts = torch.zeros(rows, dtype=torch.int32, device=device)  # of edges that reach the cut-off
        room = (1 + PENDING) * self.k * rows
        kinds = (torch.int32, torch.int32, torch.float32)
        self.edges = _Edges(*(torch.empty(room, dtype=kind, device=device) for kind in kinds))
        self.size = 0

    def take(self, edges: _Edges) -> None:
        """Note edges that reach their row's floor, and count those that reach the cut-off."""
        good = edges.sims >= (self.floor[edges.rows] if self.raised else self.least)  # no floor is below the cut-off
        if self.joins:
            other = edges.rows != edges.ids
            good &= other
            if self.counted:
                self.count(edges.rows, other & (edges.sims >= self.least))
        edges = edges.where(good)
        start, number = 0, len(edges.rows)
        while start < number:
            if self.size == len(self.edges.rows):
                self.compact()
            stop = min(number, start + len(self.edges.rows) - self.size)
            for mine, new in zip(self.edges, edges, strict=True):
                mine[self.size : self.size + stop - start] = new[start:stop]
            self.size, start = self.size + stop - start, stop

    def count(self, rows: Tensor, which: Tensor) -> None:
        """Count those of the rows that are true."""
        self.counts.index_add_(0, rows, which.int())

    def lacks_floor(self, at: Rows) -> bool:
        """Whether some rows have none; of a block that is known without asking the device."""
        if self.least > -torch.inf:
            return False
        return at.start not in self.floored if isinstance(at, slice) else bool((self.floor[at] == -torch.inf).any())

    def raise_floor(self, at: Rows, least: Tensor) -> None:
        """Have edges of some rows reach `least`."""
        self.floor[at] = torch.maximum(self.floor[at], least)
        self.raised = True

    def compact(self) -> None:
        """Keep the k best edges of each row, by (similarity descending, id ascending), and raise the floors."""
        rows, ids, sims = (each[: self.size] for each in self.edges)
        order = ids.sort(stable=True).indices
        key = (rows[order].long() << 32) - _ordered(sims[order])
        order = order[key.sort(stable=True).indices]
        del key
        edges = _Edges(rows[order], ids[order], sims[order])
        fresh = torch.ones(len(order), dtype=torch.bool, device=order.device)  # an edge may have been found twice
        fresh[1:] = (edges.rows[1:] != edges.rows[:-1]) | (edges.ids[1:] != edges.ids[:-1])
        edges = edges.where(fresh)
        place = self._places(edges.rows)
        kept = edges.where(place < self.k)
        last = edges.where(place == self.k - 1)
        self.raise_floor(last.rows.long(), last.sims)
        self.size = len(kept.rows)
        for mine, new in zip(self.edges, kept, strict=True):
            mine[: self.size] = new

    def _places(self, rows: Tensor) -> Tensor:
        """The position of each of sorted `rows` among those equal to it."""
        counts = torch.bincount(rows, minlength=len(self.floor))
        return torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]

    def top(self) -> TopK:
        """What is kept, padded to k."""
        self.compact()
        shape = (len(self.floor), self.k)
        ids = torch.full(shape, -1, dtype=torch.int64, device=self.floor.device)
        sims = torch.full(shape, torch.nan, device=self.floor.device)
        kept = _Edges(*(each[: self.size] for each in self.edges))
        place = self._places(kept.rows)
        ids[kept.rows, place] = kept.ids.long()
        sims[kept.rows, place] = kept.sims
        return TopK(ids, sims)


def topk(queries: Tensor, keys: Tensor, k: int, *, block: int) -> TopK:
    """The k largest inner products of each query [q, d] with keys [n, d]: ids are positions in `keys`.

    Memory is O(block^2 + block d + block k) beside inputs and outputs. Raises ValueError unless 1 <= k <= n and
    block >= 1.
    """
    _check(k, len(keys), block)
    task = _Task(queries, keys, k, None, _in_float32(queries, keys, block), joins=False)
    found = [_topk_block(task, at, block) for at in _slices(len(queries), block)]
    none = torch.empty(0, k, device=queries.device)
    return TopK(torch.cat([none.long(), *(each.ids for each in found)]), torch.cat([none, *(s.sims for s in found)]))


def merge_topk(a: TopK, b: TopK) -> TopK:
    """The best k of two results over disjoint keys, [q, k] each; associative and commutative.

    Raises ValueError when the shapes differ.
    """
    if a.ids.shape != b.ids.shape:
        raise ValueError(f"cannot merge top-k of shapes {tuple(a.ids.shape)} and {tuple(b.ids.shape)}")
    return best_of(torch.cat([a.ids, b.ids], 1), torch.cat([a.sims, b.sims], 1), a.ids.shape[1])


def self_join(
    vectors: Tensor, k: int, *, block: int | None = None, cutoff: float | None, progress: Report | None = None
) -> Joined:
    """The k nearest others of each row of vectors [n, d] that are at least `cutoff` similar, and how many these are.

    Each pair of blocks is multiplied once and serves both directions: n^2 d multiplications and additions in place
    of 2 n^2 d. Without a cut-off every other row counts. A block is chosen for the device when None. Raises ValueError
    unless 1 <= k < n and block >= 1.
    """
    n, block = len(vectors), BLOCK[vectors.device.type] if block is None else block
    _check(k, n - 1, block)
    found, count = _join(vectors, list(_tiles(n, block)), k, cutoff, progress)
    return Joined(found, count if cutoff is not None else torch.full_like(count, n - 1))


def cross_join(
    vectors: Tensor,
    split: int,
    k: int,
    *,
    block: int | None = None,
    cutoff: float | None,
    progress: Report | None = None,
) -> tuple[Joined, Joined]:
    """What self_join finds between two sets: for each of the first `split` rows among the others, and the reverse.

    Ids are positions in the other set; rows with fewer than k neighbours are padded. Raises ValueError unless both
    sets have rows, k >= 1 and block >= 1.
    """
    sizes, block = (split, len(vectors) - split), BLOCK[vectors.device.type] if block is None else block
    _check(1, min(sizes), block)
    _check(k, max(k, 1), block)
    rights = [slice(split + at.start, split + at.stop) for at in _slices(sizes[1], block)]
    tiles = [(left, right) for left in _slices(split, block) for right in rights]
    found, count = _join(vectors, tiles, k, cutoff, progress)
    ids = torch.where(found.ids < 0, -1, found.ids - split)
    left, right = TopK(ids[:split], found.sims[:split]), TopK(found.ids[split:], found.sims[split:])
    if cutoff is None:
        count = torch.cat([torch.full_like(count[:split], sizes[1]), torch.full_like(count[split:], sizes[0])])
    return Joined(left, count[:split]), Joined(right, count[split:])


def _join(
    vectors: Tensor, tiles: list[tuple[slice, slice]], k: int, cutoff: float | None, progress: Report | None
) -> Joined:
    """Neighbours and counts of all rows, after every tile."""
    block = max(at.stop - at.start for at, _ in tiles)
    task = _Task(vectors, vectors, k, cutoff, _fast(vectors, cutoff, block), joins=True)
    search = _Search(len(vectors), task, vectors.device)
    for done, (left, right) in enumerate(tiles, start=1):
        edges = _tile_edges(task, left, right, search)
        search.take(edges if left == right else edges.both_ways())
        if progress is not None:
            progress(done, len(tiles))
    return Joined(search.top(), search.counts)


def pairs_join(
    vectors: Tensor, tiles: Iterable[tuple[Tensor, slice]], k: int, *, cutoff: float | None, once: Once
) -> TopK:
    """The k nearest others of each row as far as they are in a tile with it: rows picked from all, and a block.

    A pair serves both of its ends. Where it is in several tiles, `once` says in which it counts.
    """
    task = _Task(vectors, vectors, k, cutoff, _fast(vectors, cutoff, NORMED_ROWS), joins=True, once=once)
    search = _Search(len(vectors), task, vectors.device)
    for left, right in tiles:
        search.take(_tile_edges(task, left, right, search).both_ways())
    return search.top()


def _topk_block(task: _Task, at: slice, block: int) -> TopK:
    own = task._replace(left=task.left[at])
    search = _Search(len(own.left), own, own.left.device)
    for keys in _slices(len(task.right), block):
        search.take(_tile_edges(own, slice(0, len(own.left)), keys, search))
    return search.top()


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


def fast_dtype(vectors: Tensor) -> torch.dtype:
    """The precision in which the device multiplies fastest: int8 or halves where it has instructions for them."""
    if vectors.is_cuda:
        if vectors.dtype == torch.float16:
            return torch.float16  # nothing is lost
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if torch.cpu._is_vnni_supported() and vectors.shape[1] >= NARROW:
        return torch.int8  # 4.5 times float32, and 2 times bfloat16 (measured)
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def _fast(vectors: Tensor, cutoff: float | None, block: int) -> _Fast:
    """The fastest product; without a cut-off one in which rows lose nothing, for others leave many cells in doubt."""
    kind, blocks = fast_dtype(vectors), list(_slices(len(vectors), block))
    if kind == torch.float32 or (cutoff is None and kind != vectors.dtype):
        return _in_float32(vectors, vectors, block)
    norm = _most(vectors[at].float() for at in blocks)
    if kind == vectors.dtype:
        if norm**2 > torch.finfo(kind).max / 2:
            return _in_float32(vectors, vectors, block)
        return _Fast(vectors, 1.0, _bound((norm, 0.0), (norm, 0.0), vectors.shape[1], kind))
    largest = float(torch.stack([vectors[at].abs().max() for at in blocks]).max())
    scale = max(largest, TINY) / INT8 if kind == torch.int8 else 1.0
    rows = torch.empty(vectors.shape, dtype=kind, device=vectors.device)
    for at in blocks:
        part = vectors[at].float()
        rows[at] = (part / scale).round() if kind == torch.int8 else part
    lost = _most(vectors[at].float() - rows[at].float() * scale for at in blocks)
    return _Fast(rows, scale**2, _bound((norm, lost), (norm, lost), vectors.shape[1], kind))


def _in_float32(left: Tensor, right: Tensor, block: int) -> _Fast:
    """A product of float32; half-precision rows lose nothing in it."""
    norms = [_most(x[at].float() for at in _slices(len(x), block)) for x in (left, right)]
    return _Fast(None, 1.0, _bound((norms[0], 0.0), (norms[1], 0.0), left.shape[1], torch.float32))


def _bound(left: tuple[float, float], right: tuple[float, float], width: int, kind: torch.dtype) -> float:
    """Bound on |fast product - exact product| of two rows, by the largest norms of rows and of what rounding takes.

    With q' = q rounded, |q'k' - qk| <= |q' - q| |k| + |q'| |k' - k| (Cauchy-Schwarz); summing in float32 adds at most
    d 2^-23 |q'| |k'| (Higham, Accuracy and Stability, 3.1), and rounding the result half its last digit, or what is too
    small for a number of the kind.
    """
    (norm, lost), (norm_right, lost_right) = left, right
    digits = torch.finfo(kind if kind.is_floating_point else torch.float32)
    whole = (norm + lost) * (norm_right + lost_right)
    return lost * norm_right + (norm + lost) * lost_right + (width * 2.0**-23 + digits.eps) * whole + digits.tiny


def _most(blocks: Iterable[Tensor]) -> float:
    """The largest norm of a row of some blocks."""
    return float(torch.stack([block.norm(dim=1).max() for block in blocks] or [torch.zeros(())]).max())


@contextmanager
def _whole_sums() -> Iterator[None]:
    """Have a GPU sum products of halves in float32 throughout: it may add parts of a sum in halves unless told."""
    flags, names = (
        torch.backends.cuda.matmul,
        [f"allow_{kind}_reduced_precision_reduction" for kind in ("fp16", "bf16")],
    )
    before = [getattr(flags, name) for name in names]
    for name in names:
        setattr(flags, name, False)
    try:
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(flags, name, value)


@_whole_sums()
def _product(task: _Task, left: Rows, right: slice) -> Tensor:
    """Inner products of a tile, in the precision and in units of the scale of task.fast."""
    rows = task.fast.rows
    if rows is None:
        return _picked(task.left, left).float() @ task.right[right].float().T
    if rows.dtype == torch.int8:
        return torch._int_mm(_picked(rows, left), rows[right].T)
    return _picked(rows, left) @ rows[right].T


def _tile_edges(task: _Task, left: Rows, right: slice, search: _Search) -> _Edges:
    """Edges of one tile, exactly scored: all that may be among the best of their row, or of their column in a join.

    Those that surely reach the cut-off without being that are only counted.
    """
    own = task.joins and isinstance(left, slice) and left == right
    both = task.joins and not own
    sims, error, scale = _product(task, left, right), task.fast.error, task.fast.scale
    _raise_floor(search, left, sims, task, always=own)
    if both:
        _raise_floor(search, right, sims.T, task, always=False)
    floors = (search.floor[left] - error) / scale, (search.floor[right] - error) / scale if both else None
    flat = _cells(sims, floors if task.cutoff is None else (task.cutoff - error) / scale)
    row = flat // sims.shape[1]
    col = flat - row * sims.shape[1]
    if task.cutoff is None or not search.raised:
        return _scored(task, left, right, row, col)
    fast = sims.flatten()[flat]
    matter = fast >= _least_at(floors, row, col)
    if search.counted:
        matter |= fast < (task.cutoff + error) / scale
        rows, ids = _numbered(left, right, row, col)
        surely = ~matter & (rows != ids)
        for ends in (rows, ids) if both else (rows,):
            search.count(ends, surely)
    kept = matter.nonzero()[:, 0]
    return _scored(task, left, right, row[kept], col[kept])


def _raise_floor(search: _Search, at: Rows, sims: Tensor, task: _Task, *, always: bool) -> None:
    """Give rows that have no floor yet one, from their cells in a tile, one of which may be a row with itself."""
    width = task.k + task.joins
    if always or search.lacks_floor(at):
        search.raise_floor(at, _lower_bound(sims, width) * task.fast.scale - task.fast.error)
        if isinstance(at, slice) and sims.shape[1] >= width:
            search.floored.add(at.start)


def _lower_bound(sims: Tensor, width: int) -> Tensor:
    """A bound [b] that at least `width` cells of each row of sims [b, B] reach, close to the width-th largest.

    It is the width-th largest of the maxima of disjoint groups of columns, 4 times cheaper than a full top-k.
    """
    rows, columns = sims.shape
    if columns < width:
        return torch.full((rows,), -torch.inf, device=sims.device)
    size = max(1, columns // (4 * width))
    groups = columns // size
    maxima = sims[:, : size * groups].reshape(rows, size, groups).amax(1)
    return maxima.topk(width, dim=1).values[:, -1].float()


def _reaching(sims: Tensor, least: float) -> Tensor:
    """Which cells are at least `least`, and perhaps some that are less than a bfloat16's last digit below.

    Bits of positive bfloat16 numbers are in the order of these, negative ones come before: comparing them as whole
    numbers takes NumPy a twentieth of the time.
    """
    if sims.dtype == torch.int32:
        return torch.from_numpy(sims.numpy() >= math.floor(least))
    if sims.is_cuda or sims.dtype != torch.bfloat16 or least <= 0:
        return sims >= least
    bits = int(torch.tensor(least, dtype=torch.bfloat16).view(torch.int16)) - 1  # rounding may have gone up
    return torch.from_numpy(sims.view(torch.int16).numpy() >= bits)


def _least_at(least: Least, row: Tensor, col: Tensor) -> Tensor | float:
    """What the cells at some places must reach."""
    if isinstance(least, float):
        return least
    of_rows, of_cols = least
    return of_rows[row] if of_cols is None else torch.minimum(of_rows[row], of_cols[col])


def _cells(sims: Tensor, least: Least) -> Tensor:
    """Flat positions of the cells that reach `least`, and perhaps of some that just do not."""
    return _grouped_cells(sims, least) if sims.is_cuda else _single_cells(sims, least)


def _single_cells(sims: Tensor, least: Least) -> Tensor:
    """Look at every cell; NumPy on the CPU, where it is 5 times faster than torch."""
    if isinstance(least, float):
        mask = _reaching(sims, least)
    else:
        of_rows, of_cols = least
        mask = sims >= of_rows[:, None]
        if of_cols is not None:
            mask |= sims >= of_cols
    if mask.is_cuda:
        return mask.flatten().nonzero()[:, 0]
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _grouped_cells(sims: Tensor, least: Least) -> Tensor:
    """Look at the largest of each group of cells, and then into groups that it lets in: the tile is read once.

    A group is every (columns / GROUP)-th cell of a row, so that neighbours in memory are read together; columns that
    are left over are groups by themselves.
    """
    columns = sims.shape[1]
    size = min(GROUP, columns)
    groups = columns // size
    most = _grouped(sims, size, Tensor.amax)
    if isinstance(least, float):
        mask = most >= least
    else:
        of_rows, of_cols = least
        mask = most >= of_rows[:, None]
        if of_cols is not None:
            mask |= most >= _grouped(of_cols[None], size, Tensor.amin)
    hits = mask.flatten().nonzero()
    if len(hits) > most.numel() // DENSE:
        return _single_cells(sims, least)
    row, group = hits // most.shape[1], hits % most.shape[1]
    alone = group >= groups
    steps = torch.arange(size, device=sims.device)
    col = torch.where(alone, group + groups * (size - 1), group + groups * steps)
    cells = row * columns + col
    near = (sims.flatten()[cells] >= _least_at(least, row, col)) & ~(alone & (steps > 0))
    return cells[near]


def _grouped(numbers: Tensor, size: int, best: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The best [b, c // size + c % size] of each group of numbers [b, c], then those that are left over."""
    columns = numbers.shape[1]
    whole = columns - columns % size
    return torch.cat([best(numbers[:, :whole].reshape(len(numbers), size, -1), 1), numbers[:, whole:]], 1)


def _numbered(left: Rows, right: slice, row: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and ids of cells of a tile."""
    return row + left.start if isinstance(left, slice) else left[row], col + right.start


def _scored(task: _Task, left: Rows, right: slice, row: Tensor, col: Tensor) -> _Edges:
    """Some cells of a tile with their inner products, summed in float64."""
    rows, ids = _numbered(left, right, row, col)
    if task.once is not None:
        keep = task.once(rows, ids).nonzero()[:, 0]
        row, col, rows, ids = row[keep], col[keep], rows[keep], ids[keep]
    whole = (left.stop - left.start if isinstance(left, slice) else len(left)) * (right.stop - right.start)
    if len(rows) > whole // DENSE:
        sims = (_picked(task.left, left).double() @ task.right[right].double().T).float()[row, col]
    else:
        sims = scores(task.left, rows, task.right, ids)
    return _Edges(rows.int(), ids.int(), sims)


def scores(left: Tensor, rows: Tensor, right: Tensor, cols: Tensor) -> Tensor:
    """Inner products [m] float32 of left[rows] with right[cols], summed in float64."""
    found = torch.empty(len(rows), device=rows.device)
    for at in _slices(len(rows), max(1, SCORE_ELEMENTS[rows.device.type] // right.shape[1])):
        if rows.is_cuda:
            found[at] = left[rows[at]].double().mul_(right[cols[at]]).sum(1)
        else:
            a, b = _picked(left, rows[at]).float().numpy(), _picked(right, cols[at]).float().numpy()
            found.numpy()[at] = np.einsum("md,md->m", a, b, dtype=np.float64)
    return found


def _picked(vectors: Tensor, at: Rows) -> Tensor:
    """vectors[at]; NumPy copies rows of halves 5 times faster than torch."""
    if isinstance(at, slice) or vectors.is_cuda:
        return vectors[at]
    bits = vectors.view(torch.int16) if vectors.dtype == torch.bfloat16 else vectors  # NumPy has no bfloat16
    return torch.from_numpy(np.take(bits.numpy(), at.numpy(), axis=0)).view(vectors.dtype)


def _ordered(sims: Tensor) -> Tensor:
    """int64 of at most 32 bits in the order of float32 numbers."""
    bits = sims.view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def best_of(ids: Tensor, sims: Tensor, k: int) -> TopK:
    """The first k of each row by (similarity descending, id ascending), pads last."""
    ids, order = torch.where(ids < 0, NO_ID, ids).sort(dim=1)
    sims = sims.gather(1, order).masked_fill_(ids == NO_ID, -torch.inf)
    sims, order = sims.sort(dim=1, descending=True, stable=True)
    ids = ids.gather(1, order)[:, :k]
    pads = ids == NO_ID
    return TopK(ids.masked_fill(pads, -1), sims[:, :k].masked_fill(pads, torch.nan))
