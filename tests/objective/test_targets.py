"""Targets and weights of the objectives, over random shapes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.batches import captions, classes, unit_rows
from xclr.objective import (
    class_targets,
    contrastive,
    cosine_logits,
    excluding,
    identity_targets,
    itself_and_pair,
    pair_targets,
    self_mask,
    soft_targets,
    weighted_targets,
    without,
)

few = settings(max_examples=40, deadline=None)
SAMPLES, SEEDS = st.integers(2, 12), st.integers(0, 10_000)


def some_anchors(n, seed):
    """A few columns in any order: the anchors of one rank among the candidates of all."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(n, generator=generator)[: max(1, n // 3)]


@few
@given(
    rows=st.integers(1, 9), columns=st.integers(2, 9), seed=SEEDS, temperature=st.sampled_from([1e-4, 0.1, 1.0, 50.0])
)
def test_soft_targets_are_a_distribution_over_what_is_not_excluded(rows, columns, seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.rand(rows, columns, generator=generator, dtype=torch.float64) * 2 - 1
    exclude = torch.rand(rows, columns, generator=generator) < 0.4
    exclude[:, seed % columns] = False
    targets = soft_targets(similarity, temperature=temperature, exclude=exclude)
    torch.testing.assert_close(targets.sum(1), torch.ones(rows, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (targets[exclude] == 0).all() and (targets >= 0).all()


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64, torch.bool]
)
def test_soft_targets_take_any_dtype_and_are_float32_or_wider(dtype):
    targets = soft_targets(torch.eye(5).to(dtype), temperature=0.1, exclude=self_mask(torch.arange(5), 5))
    assert targets.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(targets.sum(1).double(), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-6)


def test_soft_targets_ignore_what_stands_in_an_excluded_cell():
    itself = self_mask(torch.arange(4), 4)
    similarity = unit_rows(4, 4)
    for value in (math.nan, math.inf, -math.inf):
        poisoned = similarity.masked_fill(itself, value)
        expected = soft_targets(similarity, temperature=0.1, exclude=itself)
        assert torch.equal(soft_targets(poisoned, temperature=0.1, exclude=itself), expected)


def test_soft_targets_without_exclusion_are_the_softmax():
    similarity = unit_rows(3, 5).requires_grad_()
    targets = soft_targets(similarity, temperature=0.2)
    assert not targets.requires_grad
    torch.testing.assert_close(targets, (similarity.detach() / 0.2).softmax(1), rtol=0, atol=0)


def test_duplicated_captions_share_the_mass():
    e = captions(4, 6)
    e[[1, 5]] = e[[0, 4]]
    targets = soft_targets(e @ e.T, temperature=0.1, exclude=self_mask(torch.arange(8), 8))
    assert targets[0, 1].item() == pytest.approx(targets[0, 4].item(), rel=1e-12)


def test_soft_targets_refuse_what_leaves_no_distribution():
    with pytest.raises(ValueError, match="leaves no candidate"):
        soft_targets(torch.zeros(2, 2), temperature=0.1, exclude=torch.tensor([[True, True], [False, True]]))
    with pytest.raises(ValueError, match="must be positive"):
        soft_targets(torch.zeros(2, 2), temperature=0.0)


def test_a_0_1_graph_at_tau_0_1_is_not_simclr():
    """The positive of 2,048 views holds 0.915 of the mass: exact limits need colder targets."""
    similarity = torch.zeros(1, 2047, dtype=torch.float64)
    similarity[0, 0] = 1
    assert soft_targets(similarity, temperature=0.1)[0, 0].item() == pytest.approx(0.915, abs=5e-4)


@few
@given(samples=SAMPLES, seed=SEEDS)
def test_one_hot_builders_point_at_the_right_column(samples, seed):
    n = 2 * samples
    anchors = some_anchors(n, seed)
    for row, a in enumerate(anchors.tolist()):
        assert self_mask(anchors, n)[row].nonzero().flatten().tolist() == [a]
        assert identity_targets(anchors, n)[row].nonzero().flatten().tolist() == [a]
        assert pair_targets(anchors, n)[row].nonzero().flatten().tolist() == [(a + samples) % n]
    for targets in (identity_targets(anchors, n), pair_targets(anchors, n)):
        assert torch.equal(targets.sum(1), torch.ones(len(anchors)))


@few
@given(samples=SAMPLES, seed=SEEDS, count=st.integers(1, 5))
def test_class_targets_are_uniform_over_the_other_views_of_the_class(samples, seed, count):
    n, labels = 2 * samples, classes(samples, count, seed=seed)
    anchors = some_anchors(n, seed)
    targets = class_targets(labels[anchors], labels, anchors, dtype=torch.float64)
    torch.testing.assert_close(targets.sum(1), torch.ones(len(anchors), dtype=torch.float64), rtol=0, atol=1e-12)
    for row, a in zip(targets, anchors.tolist(), strict=True):
        positives = [k for k in range(n) if k != a and labels[k] == labels[a]]
        assert row.nonzero().flatten().tolist() == positives
        assert row.unique().numel() <= 2


@few
@given(samples=SAMPLES, seed=SEEDS, count=st.integers(1, 4))
def test_cold_targets_become_pair_and_class_targets(samples, seed, count):
    n, labels = 2 * samples, classes(samples, count, seed=seed)
    anchors = some_anchors(n, seed)
    exclude = self_mask(anchors, n)
    distinct = torch.eye(samples, dtype=torch.float64).repeat(2, 2)[anchors]
    cold = soft_targets(distinct, temperature=1e-4, exclude=exclude)
    torch.testing.assert_close(cold, pair_targets(anchors, n).double(), rtol=0, atol=1e-12)
    same = labels[anchors][:, None] == labels
    cold = soft_targets(same.double(), temperature=1e-4, exclude=exclude)
    hard = class_targets(labels[anchors], labels, anchors, dtype=torch.float64)
    torch.testing.assert_close(cold, hard, rtol=0, atol=1e-12)


@few
@given(samples=SAMPLES, seed=SEEDS)
def test_weights_are_minus_infinity_where_excluded_and_else_zero(samples, seed):
    n = 2 * samples
    anchors = some_anchors(n, seed)
    weights = without(itself_and_pair(anchors, n), n)
    for row, a in zip(weights, anchors.tolist(), strict=True):
        assert row.isinf().nonzero().flatten().tolist() == sorted([a, (a + samples) % n])
        assert (row[row.isfinite()] == 0).all()
    assert torch.equal(excluding(self_mask(anchors, n)).exp() == 0, self_mask(anchors, n))


def test_anchors_of_a_part_give_the_rows_of_the_whole():
    n, labels = 12, classes(6, 3)
    part, whole = torch.tensor([2, 3, 8, 9]), torch.arange(12)
    assert torch.equal(pair_targets(part, n), pair_targets(whole, n)[part])
    assert torch.equal(class_targets(labels[part], labels, part), class_targets(labels, labels, whole)[part])
    assert torch.equal(itself_and_pair(part, n), itself_and_pair(whole, n)[part])


def test_builders_refuse_batches_without_views():
    with pytest.raises(ValueError, match="two views"):
        pair_targets(torch.arange(3), 3)
    with pytest.raises(ValueError, match="no negative"):
        itself_and_pair(torch.arange(2), 2)


def test_an_anchor_without_positives_has_no_targets():
    assert torch.equal(class_targets(torch.tensor([0]), torch.tensor([0, 1]), torch.tensor([0])), torch.zeros(1, 2))
    assert torch.equal(weighted_targets(torch.tensor([[-1.0, -1.0], [1.0, 0.0]]))[0], torch.zeros(2))


def test_relatives_are_choices_of_targets_and_weights():
    """InfoLOOB: identity targets, the positive out of the denominator. CWCL: weights of the frozen side as targets."""
    z, t, anchors = unit_rows(6, 5, seed=3), unit_rows(6, 5, seed=4), torch.arange(6)
    logits = cosine_logits(z, t, temperature=0.07)
    infoloob = contrastive(logits, identity_targets(anchors, 6), excluding(self_mask(anchors, 6)))
    off = logits[~self_mask(anchors, 6)].view(6, 5)
    assert infoloob.item() == pytest.approx((off.logsumexp(1) - logits.diagonal()).mean().item(), abs=1e-12)
    weight = (1 + t @ t.T) / 2
    cwcl = contrastive(logits, weight / weight.sum(1, keepdim=True))
    by_hand = -(weight * logits.log_softmax(1)).sum(1) / weight.sum(1)
    assert cwcl.item() == pytest.approx(by_hand.mean().item(), abs=1e-12)
