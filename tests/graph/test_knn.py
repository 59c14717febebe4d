"""Exact neighbours against brute force and faiss, ties, merging, counts."""

from contextlib import contextmanager

import faiss
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from xclr.graph import TopK, cross_join, knn, merge_topk, self_join, topk

COPIES = 128


@contextmanager
def selecting(group):
    """As a GPU does, by groups of cells, each of which is looked into where it may matter; None: as the CPU does."""
    with pytest.MonkeyPatch.context() as patch:
        if group:
            patch.setattr(knn, "_cells", knn._grouped_cells)
            patch.setattr(knn, "GROUP", group)
            patch.setattr(knn, "DENSE", 16 if group == 1 else 1)  # the whole tile where many groups matter; never
        yield


WAYS = st.sampled_from([None, 1, 3, 32])


def unit_rows(n, d, seed, copies=0):
    """Half-precision unit rows; `copies` of them repeat others."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d))
    if copies:
        rows[rng.integers(n, size=copies)] = rows[rng.integers(n, size=copies)]
    return F.normalize(torch.from_numpy(rows), dim=1).half()


def brute_force(queries, keys, k, own=False):
    """Full sort of the exact products by (similarity descending, id ascending)."""
    sims = (queries.double() @ keys.double().T).float().numpy()
    if own:
        np.fill_diagonal(sims, -np.inf)
    ids = np.broadcast_to(np.arange(len(keys)), sims.shape)
    order = np.lexsort((ids, -sims), axis=1)[:, :k]
    return TopK(torch.from_numpy(order), torch.from_numpy(np.take_along_axis(sims, order, 1)))


def same(a, b):
    return torch.equal(a.ids, b.ids) and torch.equal(a.sims.nan_to_num(-9), b.sims.nan_to_num(-9))


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 90), q=st.integers(1, 40), d=st.integers(1, 12), k=st.integers(1, 12), block=st.integers(1, 100),
    seed=st.integers(0, 2**31), copies=st.integers(0, 60), group=WAYS,
)  # fmt: skip
def test_topk_is_the_sorted_truth_for_any_block(*, n, q, d, k, block, seed, copies, group):
    vectors = unit_rows(n, d, seed, copies)
    queries = unit_rows(q, d, seed + 1)
    queries[: q // 2] = vectors[torch.randint(n, (q // 2,), generator=torch.Generator().manual_seed(seed % 1000))]
    k = min(k, n)
    with selecting(group):
        found = topk(queries, vectors, k, block=block)
    assert same(found, brute_force(queries, vectors, k))
    assert found.ids.dtype == torch.int64
    assert found.sims.dtype == torch.float32


def cut(found, cutoff):
    """Only the neighbours that reach the cut-off."""
    if cutoff is None:
        return found
    near = found.sims >= cutoff
    return TopK(torch.where(near, found.ids, -1), torch.where(near, found.sims, torch.nan))


def true_count(sims, cutoff):
    return (sims >= (-2 if cutoff is None else cutoff)).sum(1).int()


CUTOFFS = st.sampled_from([None, -1.0, 0.0, 0.3, 0.6, 0.95, 1.0])


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(2, 120), d=st.integers(1, 24), k=st.integers(1, 12), block=st.integers(1, 130),
    seed=st.integers(0, 2**31), copies=st.integers(0, 60), cutoff=CUTOFFS, group=WAYS,
)  # fmt: skip
def test_self_join_is_the_sorted_truth_for_any_block(*, n, d, k, block, seed, copies, cutoff, group):
    vectors, block = unit_rows(n, d, seed, copies), max(block, n // 12)
    k = min(k, n - 1)
    with selecting(group):
        found, count = self_join(vectors, k, block=block, cutoff=cutoff)
    assert same(found, cut(brute_force(vectors, vectors, k, own=True), cutoff))
    sims = (vectors.double() @ vectors.double().T).float().fill_diagonal_(-torch.inf)
    assert torch.equal(count, true_count(sims, cutoff))


@settings(max_examples=50, deadline=None)
@given(
    a=st.integers(1, 70), b=st.integers(1, 70), d=st.integers(1, 24), k=st.integers(1, 12),
    block=st.integers(1, 80), seed=st.integers(0, 2**31), copies=st.integers(0, 60), cutoff=CUTOFFS, group=WAYS,
)  # fmt: skip
def test_cross_join_is_the_sorted_truth_of_both_sides(*, a, b, d, k, block, seed, copies, cutoff, group):
    vectors = unit_rows(a + b, d, seed, copies)
    left, right = vectors[:a], vectors[a:]
    with selecting(group):
        sides = cross_join(vectors, a, k, block=block, cutoff=cutoff)
    for (found, count), (own, other) in zip(sides, ((left, right), (right, left)), strict=True):
        expected = cut(brute_force(own, other, min(k, len(other))), cutoff)
        pads = k - expected.ids.shape[1]
        assert same(found, TopK(F.pad(expected.ids, (0, pads), value=-1), F.pad(expected.sims, (0, pads), value=-9)))
        assert torch.equal(count, true_count((own.double() @ other.double().T).float(), cutoff))


KINDS = pytest.mark.parametrize("kind", [torch.int8, torch.bfloat16, torch.float16, torch.float32])


@KINDS
@pytest.mark.parametrize("half", [True, False])
def test_the_precision_of_the_products_changes_no_bit(kind, half, monkeypatch):
    """What a machine multiplies fastest in is not in the artifact's name."""
    vectors = unit_rows(900, 48, seed=5, copies=200)
    vectors = vectors if half else F.normalize(vectors.float(), dim=1)
    expected, count = self_join(vectors, 9, block=256, cutoff=0.3)
    monkeypatch.setattr(knn, "fast_dtype", lambda vectors: kind)
    found, again = self_join(vectors, 9, block=300, cutoff=0.3)
    assert same(found, expected)
    assert torch.equal(count, again)
    task = knn._Task(vectors, vectors, 9, 0.3, knn._fast(vectors, 0.3, 256), joins=True)
    fast = knn._product(task, slice(0, 900), slice(0, 900)).double() * task.fast.scale
    assert (fast - vectors.double() @ vectors.double().T).abs().max() <= task.fast.error


def crowded(n, d, spread, seed=0):
    """Unit rows about one direction: their products differ by less than the fast product's error."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal(d) / np.sqrt(d) + spread * rng.standard_normal((n, d)) / np.sqrt(d)
    return F.normalize(torch.from_numpy(rows), dim=1).half()


@KINDS
@pytest.mark.parametrize("spread", [3e-3, 3e-2])
@pytest.mark.parametrize("cutoff", [None, "the middle"])
@pytest.mark.parametrize("group", [None, 4])
def test_neighbours_that_the_fast_product_cannot_tell_apart_are_found(kind, spread, cutoff, group, monkeypatch):
    """Its margins are what keeps them: with less of one, or of the other sign, some would be lost or counted wrong."""
    monkeypatch.setattr(knn, "fast_dtype", lambda vectors: kind)
    vectors = crowded(300, 48, spread)
    sims = (vectors.double() @ vectors.double().T).float().fill_diagonal_(-torch.inf)
    least = None if cutoff is None else float(sims.flatten().quantile(0.5))
    with selecting(group):
        found, count = self_join(vectors, 5, block=64, cutoff=least)
        (mine, _), (theirs, _) = cross_join(vectors, 120, 5, block=64, cutoff=least)
    assert same(found, cut(brute_force(vectors, vectors, 5, own=True), least))
    assert torch.equal(count, true_count(sims, least))
    assert same(mine, cut(brute_force(vectors[:120], vectors[120:], 5), least))
    assert same(theirs, cut(brute_force(vectors[120:], vectors[:120], 5), least))
    if cutoff is None:
        assert same(topk(vectors[:50], vectors, 5, block=64), brute_force(vectors[:50], vectors, 5))


class Waits(TorchDispatchMode):
    """Counts what has a CPU wait for a GPU: numbers read, and results whose size only the device knows."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kind = func.overloadpacket
        masked = kind is torch.ops.aten.index and any(x is not None and x.dtype == torch.bool for x in args[1])
        self.number += masked or kind in (torch.ops.aten.nonzero, torch.ops.aten._local_scalar_dense)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("cutoff", [None, 0.3])
def test_a_tile_waits_for_the_device_at_most_five_times(cutoff):
    vectors, numbers = unit_rows(600, 48, seed=7, copies=100), []
    for block in (150, 100):  # 10 tiles, 21
        with selecting(8), Waits() as waits:
            self_join(vectors, 5, block=block, cutoff=cutoff)
        numbers.append(waits.number)
    assert 0 < numbers[1] - numbers[0] <= 5 * 11
    assert numbers[0] <= 5 * 10 + 20  # norms at the beginning, and when edges that turned out worse are dropped


def test_many_copies_are_ordered_by_id():
    vectors = unit_rows(6, 24, seed=3)[torch.arange(6).repeat_interleave(COPIES)]
    found, count = self_join(vectors, 5, block=100, cutoff=0.99)
    assert same(found, brute_force(vectors, vectors, 5, own=True))
    assert count.unique().tolist() == [COPIES - 1]
    assert same(topk(vectors, vectors, 7, block=333), brute_force(vectors, vectors, 7))


def test_agrees_with_faiss():
    vectors = unit_rows(1500, 64, seed=1)
    array = vectors.float().numpy()
    index = faiss.IndexFlatIP(64)
    index.add(array)
    sims, ids = index.search(array, 17)
    found = topk(vectors, vectors, 17, block=700)
    np.testing.assert_allclose(found.sims, sims, atol=1e-6)
    np.testing.assert_array_equal(found.ids[:, 0], np.arange(1500))
    assert (found.ids.numpy() == ids).mean() > 0.999  # faiss breaks near-ties its own way
    joined, _ = self_join(vectors, 16, block=512, cutoff=None)
    assert torch.equal(joined.ids, found.ids[:, 1:])


def test_block_changes_no_bit():
    vectors = unit_rows(2500, 96, seed=2, copies=300)
    results = [self_join(vectors, 20, block=block, cutoff=0.25) for block in (2500, 1024, 777, 250)]
    for found, count in results[1:]:
        assert same(found, results[0][0])
        assert torch.equal(count, results[0][1])


def test_rows_that_are_not_unit_and_float32():
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(50, 8, generator=generator), 30 * torch.randn(200, 8, generator=generator)
    assert same(topk(queries, keys, 9, block=64), brute_force(queries, keys, 9))


def test_progress_counts_pairs_of_blocks():
    seen = []
    self_join(unit_rows(50, 8, seed=0), 3, block=20, cutoff=0.5, progress=lambda *x: seen.append(x))
    assert seen == [(done, 6) for done in range(1, 7)]


def test_one_set_is_empty():
    with pytest.raises(ValueError, match="only 0 candidates"):
        cross_join(unit_rows(4, 4, seed=0), 4, 2, block=2, cutoff=None)


def test_no_queries():
    found = topk(torch.empty(0, 4), torch.randn(5, 4), 3, block=2)
    assert found.ids.shape == found.sims.shape == (0, 3)


@pytest.mark.parametrize(("k", "block", "text"), [(0, 4, "at least 1"), (10, 4, "only 9"), (2, 0, "block is 0")])
def test_impossible_requests(k, block, text):
    vectors = unit_rows(10, 4, seed=0)
    with pytest.raises(ValueError, match=text):
        self_join(vectors, k, block=block, cutoff=0.5)
    with pytest.raises(ValueError, match=text):
        topk(vectors, vectors[:9], k, block=block)


def shards(seed, parts, k):
    """Results over disjoint parts of 30 keys, some parts smaller than k and so padded."""
    keys, queries = unit_rows(30, 2, seed, copies=25), unit_rows(7, 2, seed + 1)
    queries[0] = keys[0]
    for ids in np.array_split(np.random.default_rng(seed).permutation(30), parts):
        width = min(k, len(ids))
        found = topk(queries, keys[np.sort(ids)], width, block=4)
        pads = k - width
        yield TopK(
            F.pad(torch.from_numpy(np.sort(ids))[found.ids], (0, pads), value=-1),
            F.pad(found.sims, (0, pads), value=torch.nan),
        )
    yield topk(queries, keys, k, block=30)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), parts=st.integers(3, 12), k=st.integers(1, 9))
def test_merge_is_associative_and_commutative_and_gives_the_whole(seed, parts, k):
    *found, whole = shards(seed, parts, k)
    a, b, c = found[:3]
    assert same(merge_topk(a, b), merge_topk(b, a))
    assert same(merge_topk(merge_topk(a, b), c), merge_topk(a, merge_topk(b, c)))
    result = found[-1]
    for each in found[:-1]:
        result = merge_topk(result, each)
    assert same(result, whole)


def test_merge_keeps_pads_last():
    a = TopK(torch.tensor([[4, -1]]), torch.tensor([[-0.5, torch.nan]]))
    b = TopK(torch.tensor([[-1, -1]]), torch.tensor([[torch.nan, torch.nan]]))
    assert same(merge_topk(b, a), a)
    with pytest.raises(ValueError, match="shapes"):
        merge_topk(a, TopK(b.ids[:, :1], b.sims[:, :1]))
