"""The loss and its block-wise twin."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.batches import Largest, captions, classes, unit_rows, value_and_gradient, views
from xclr.objective import (
    class_targets,
    contrast,
    contrastive,
    cosine_logits,
    default_block,
    excluding,
    itself_and_pair,
    pair_targets,
    self_mask,
    soft_targets,
    without,
    xclr_loss,
    xclr_loss_from_embeddings,
)

SHAPES = {"samples": st.integers(2, 12), "d": st.integers(2, 9), "seed": st.integers(0, 10_000)}
few = settings(max_examples=25, deadline=None)


def by_the_equation(z, similarity, tau, tau_s):
    """L = -(1/n) sum_i sum_{j != i} s_ij log p_ij, cell by cell."""
    n, total = len(z), 0.0
    for i in range(n):
        others = [k for k in range(n) if k != i]
        p = [math.exp(float(z[i] @ z[k]) / tau) for k in others]
        s = [math.exp(float(similarity[i, k]) / tau_s) for k in others]
        total -= sum(a / sum(s) * math.log(b / sum(p)) for a, b in zip(s, p, strict=True))
    return total / n


def test_xclr_loss_is_the_equation():
    z, e = views(5, 4), captions(5, 6)
    loss = xclr_loss(z, e @ e.T, temperature=0.2, target_temperature=0.3)
    assert loss.item() == pytest.approx(by_the_equation(z.detach(), e @ e.T, 0.2, 0.3), abs=1e-12)


@few
@given(**SHAPES)
def test_the_gradient_of_a_logit_is_softmax_minus_target_over_rows(samples, d, seed):
    z, e = views(samples, d, seed=seed), captions(samples, d, seed=seed)
    itself = self_mask(torch.arange(2 * samples), 2 * samples)
    logits = cosine_logits(z, z, temperature=0.1).detach().requires_grad_()
    targets = soft_targets(e @ e.T, temperature=0.1, exclude=itself)
    _, (gradient,) = value_and_gradient(contrastive(logits, targets, excluding(itself)), logits)
    softmax = logits.detach().masked_fill(itself, -math.inf).softmax(dim=1)
    torch.testing.assert_close(gradient, (softmax - targets) / (2 * samples), rtol=0, atol=1e-12)


@few
@given(**SHAPES)
def test_the_order_of_the_batch_changes_nothing(samples, d, seed):
    z, e = unit_rows(2 * samples, d, seed=seed), captions(samples, d, seed=seed)
    order = torch.randperm(2 * samples, generator=torch.Generator().manual_seed(seed))
    expected = xclr_loss(z, e @ e.T).item()
    assert xclr_loss(z[order], e[order] @ e[order].T).item() == pytest.approx(expected, rel=1e-12)
    assert xclr_loss_from_embeddings(z[order], e[order]).item() == pytest.approx(expected, rel=1e-12)


@few
@given(**SHAPES)
def test_cold_targets_on_distinct_captions_are_simclr(samples, d, seed):
    z, anchors = unit_rows(2 * samples, d, seed=seed), torch.arange(2 * samples)
    distinct = torch.eye(samples, dtype=torch.float64).repeat(2, 2)
    cold = xclr_loss(z, distinct, target_temperature=1e-4)
    positive = (z * z.roll(samples, 0)).sum(1) / 0.1
    others = (z @ z.T / 0.1).masked_fill(self_mask(anchors, len(z)), -math.inf)
    assert cold.item() == pytest.approx((others.logsumexp(1) - positive).mean().item(), rel=1e-10)


@few
@given(**SHAPES, count=st.integers(1, 4))
def test_cold_targets_on_a_class_graph_are_supcon(samples, d, seed, count):
    z, labels, anchors = (
        unit_rows(2 * samples, d, seed=seed),
        classes(samples, count, seed=seed),
        torch.arange(2 * samples),
    )
    cold = xclr_loss(z, (labels[:, None] == labels).double(), target_temperature=1e-4)
    targets = class_targets(labels, labels, anchors, dtype=torch.float64)
    hard = contrastive(cosine_logits(z, z, temperature=0.1), targets, excluding(self_mask(anchors, len(z))))
    assert cold.item() == pytest.approx(hard.item(), rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_are_computed_in_float32(dtype):
    z, e = views(16, 8, dtype=dtype), captions(16, 8, dtype=dtype)
    wide = z.detach().float().requires_grad_()
    similarity = e.float() @ e.float().T
    expected, (slope,) = value_and_gradient(xclr_loss(wide, similarity), wide)
    for loss in (xclr_loss(z, similarity), xclr_loss_from_embeddings(z, e)):
        value, (gradient,) = value_and_gradient(loss, z)
        assert loss.dtype == torch.float32 and gradient.dtype == dtype
        assert value == pytest.approx(expected, rel=1e-6)
        torch.testing.assert_close(gradient.float(), slope, rtol=0.02, atol=1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert xclr_loss(wide, similarity).item() == pytest.approx(expected, rel=1e-6)
        assert xclr_loss_from_embeddings(wide, e.float()).item() == pytest.approx(expected, rel=1e-6)


def test_bfloat16_logits_and_similarities_give_no_nan():
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).mul(300).bfloat16().requires_grad_()
    itself = self_mask(torch.arange(6), 6)
    targets = soft_targets(logits.detach() / 300, temperature=0.01, exclude=itself)
    loss = contrastive(logits, targets, excluding(itself))
    assert loss.dtype == torch.float32
    value, (gradient,) = value_and_gradient(loss, logits)
    assert math.isfinite(value) and gradient.isfinite().all()


@pytest.mark.parametrize("excluded", [-math.inf, math.inf, math.nan])
def test_whatever_stands_in_an_excluded_cell_stays_out(excluded):
    itself = self_mask(torch.arange(6), 6)
    clean = unit_rows(6, 6).requires_grad_()
    poisoned = clean.detach().masked_fill(itself, excluded).requires_grad_()
    targets = pair_targets(torch.arange(6), 6)
    expected, (slope,) = value_and_gradient(contrastive(clean, targets, excluding(itself)), clean)
    value, (gradient,) = value_and_gradient(contrastive(poisoned, targets, excluding(itself)), poisoned)
    assert value == expected
    torch.testing.assert_close(gradient, slope, rtol=0, atol=0)


def test_a_positive_out_of_the_denominator_still_attracts():
    anchors = torch.arange(8)
    z = views(4, 5)
    logits = cosine_logits(z, z, temperature=0.1)
    loss = contrastive(logits, pair_targets(anchors, 8), without(itself_and_pair(anchors, 8), 8))
    pair = (anchors + 4) % 8
    rest = [[k for k in range(8) if k not in (i, (i + 4) % 8)] for i in range(8)]
    by_hand = torch.stack([logits[i, rest[i]].logsumexp(0) - logits[i, pair[i]] for i in range(8)]).mean()
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-12)


def test_log_weights_count_a_candidate_more_than_once():
    logits, targets = unit_rows(3, 4), torch.eye(3, 4)
    doubled = contrastive(logits, targets, torch.tensor([0.0, 0.0, 0.0, math.log(2)]))
    repeated = contrastive(torch.cat([logits, logits[:, 3:]], 1), torch.eye(3, 5))
    assert doubled.item() == pytest.approx(repeated.item(), rel=1e-7)


def test_no_gradient_reaches_the_graph():
    z, e = views(4, 3), captions(4, 3).requires_grad_()
    xclr_loss(z, e @ e.T).backward()
    xclr_loss_from_embeddings(z, e).backward()
    assert e.grad is None and z.grad is not None


@pytest.mark.parametrize("block", [None, 1, 7, 26, 1000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_block_by_block_is_the_plain_loss(block, dtype, tolerance):
    z, e = views(13, 6, dtype=dtype), captions(13, 9, dtype=dtype)
    temperatures = {"temperature": 0.13, "target_temperature": 0.07}
    expected, (slope,) = value_and_gradient(3 * xclr_loss(z, e @ e.T, **temperatures), z)
    twin = 3 * xclr_loss_from_embeddings(z, e, block=block, **temperatures)
    value, (gradient,) = value_and_gradient(twin, z)
    assert value == pytest.approx(expected, rel=tolerance)
    assert ((gradient - slope).norm() / slope.norm()).item() <= tolerance


@few
@given(**SHAPES, block=st.integers(1, 30))
def test_block_by_block_is_the_plain_loss_for_any_shape(samples, d, seed, block):
    z, e = views(samples, d, seed=seed), captions(samples, d, seed=seed)
    expected, (slope,) = value_and_gradient(xclr_loss(z, e @ e.T), z)
    value, (gradient,) = value_and_gradient(xclr_loss_from_embeddings(z, e, block=block), z)
    assert value == pytest.approx(expected, rel=1e-10)
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-12)


def test_block_by_block_backpropagates_through_a_network():
    e = captions(6, 5)
    weight = unit_rows(7, 4, seed=5).requires_grad_()
    pictures = unit_rows(12, 7, seed=6)
    losses = [
        xclr_loss(F.normalize(pictures @ weight), e @ e.T),
        xclr_loss_from_embeddings(F.normalize(pictures @ weight), e),
    ]
    plain, twin = (value_and_gradient(loss, weight)[1][0] for loss in losses)
    torch.testing.assert_close(twin, plain, rtol=1e-10, atol=1e-12)


def test_block_by_block_without_gradient_gives_the_value_only():
    z, e = views(6, 4), captions(6, 4)
    with torch.no_grad():
        loss = xclr_loss_from_embeddings(z, e)
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(xclr_loss(z, e @ e.T).item(), rel=1e-12)
    assert not xclr_loss_from_embeddings(z.detach(), e).requires_grad


@pytest.mark.parametrize("n", [16, 64, 1024])
def test_block_by_block_never_holds_an_n_by_n_matrix(n):
    z, e = views(n // 2, 4, dtype=torch.float32), captions(n // 2, 4, dtype=torch.float32)
    with Largest() as plain:
        xclr_loss(z, e @ e.T).backward()
    with Largest() as twin:
        xclr_loss_from_embeddings(z, e).backward()
    assert plain.elements >= n * n
    assert twin.elements <= n * n // 4  # both buffers of an eighth of the rows


def test_blocks_are_sized_for_the_device():
    """Few and large on a GPU, where launches cost; both buffers and both gradients below n * n / 8 numbers."""
    for n in (8192, 32_768):
        block = default_block(n, torch.device("cuda"))
        assert default_block(n, torch.device("cpu")) < block and n / block <= 32
        assert 2 * block * n + 2 * 128 * n < n * n / 8


def test_shapes_and_numbers_that_cannot_be_meant_are_refused():
    z, e = unit_rows(8, 3), captions(4, 3)
    with pytest.raises(ValueError, match=r"repeat\(2, 2\)"):
        xclr_loss(z, torch.eye(4))
    with pytest.raises(ValueError, match="one caption row for each of the 8"):
        xclr_loss_from_embeddings(z, e[:4])
    with pytest.raises(ValueError, match="at least two rows"):
        xclr_loss(z[:1], torch.eye(1))
    for wrong in ({"temperature": 0.0}, {"target_temperature": -0.1}, {"block": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            xclr_loss_from_embeddings(z, e, **wrong)
    with pytest.raises(ValueError, match="must be one filled"):
        contrastive(torch.zeros(4, 4), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="must be one filled"):
        contrastive(torch.zeros(0, 4), torch.zeros(0, 4))


def rows_of(targets):
    """A tensor of the caller's own for each slice."""
    return lambda rows: targets[rows].clone()


@few
@given(
    b=st.integers(1, 9), candidates=st.integers(3, 14), d=st.integers(1, 6), m=st.integers(0, 2),
    block=st.integers(1, 10), seed=st.integers(0, 10_000),
)  # fmt: skip
def test_any_targets_and_exclusions_are_the_same_block_by_block(b, candidates, d, m, block, seed):
    """Local anchors among more candidates, target rows that need not sum to 1, a learned temperature."""
    generator = torch.Generator().manual_seed(seed)
    queries, keys = (
        unit_rows(b, d, seed=seed).requires_grad_(),
        unit_rows(candidates, d, seed=seed + 1).requires_grad_(),
    )
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    whole = torch.rand(b, candidates, generator=generator, dtype=torch.float64)
    excluded = torch.stack([torch.randperm(candidates, generator=generator)[:m] for _ in range(b)]) if m else None
    found = [
        value_and_gradient(
            contrast(queries, keys, rows_of(whole), temperature=temperature, excluded=excluded, block=each),
            queries, keys, temperature,
        )
        for each in (None, block)
    ]  # fmt: skip
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-10, abs=1e-12)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-9, atol=1e-11)
