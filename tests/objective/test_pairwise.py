"""Losses that are no softmax over candidates: beside their peers, by hand, and at their limits."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightly.loss import SwaVLoss
from open_clip.loss import SigLipLoss
from sklearn.metrics import roc_auc_score

from tests.kit.batches import unit_rows, value_and_gradient
from xclr.objective import (
    Opposed,
    alignment,
    attract_and_repel,
    auc_margin_loss,
    contrastive,
    cross_uniformity,
    identity_targets,
    jensen_shannon_loss,
    mann_whitney_loss,
    match_targets,
    sigmoid_loss,
    sinkhorn,
    uniformity,
)
from xclr.training.objectives.report import spread_report

N, D = 10, 6
SCALE, BIAS = torch.tensor(10.0), torch.tensor(-10.0)


def own(part):
    return identity_targets(torch.arange(N)[part], N)


def opposed(queries, keys):
    """Each query's positive is the key of its place; nothing else is excluded."""
    places = torch.arange(len(queries))
    return Opposed(queries, keys, places, places[:, None])


@pytest.fixture
def sides():
    return unit_rows(N, D, seed=0), unit_rows(N, D, seed=1)


LOSSES = {
    "siglip": lambda x, y, block: sigmoid_loss(x, y, own, scale=SCALE, bias=BIAS, block=block),
    "cacr": lambda x, y, block: attract_and_repel(opposed(x, y), attraction=1.5, repulsion=0.5, block=block),
    "mw": lambda x, y, block: mann_whitney_loss(opposed(x, y), temperature=0.2, block=block),
    "auc": lambda x, y, block: auc_margin_loss(
        opposed(x, y), centres=torch.tensor([0.9, 0.1]), dual=torch.tensor(0.4), margin=1.0, block=block
    ),
    "cross-uniformity": cross_uniformity,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("block", [1, 3, N])
def test_block_by_block_the_value_and_the_gradients_are_the_same(sides, name, block):
    x, y = (each.requires_grad_() for each in sides)
    expected, slopes = value_and_gradient(LOSSES[name](x, y, None), x, y)
    found, gradients = value_and_gradient(LOSSES[name](x, y, block), x, y)
    assert found == pytest.approx(expected, rel=1e-12)
    for gradient, slope in zip(gradients, slopes, strict=True):
        torch.testing.assert_close(gradient, slope, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(sides, name):
    x, y = (each[:4].requires_grad_() for each in sides)
    if name == "siglip":
        targets = torch.eye(4, dtype=torch.float64)
        loss = lambda x, y: sigmoid_loss(x, y, lambda part: targets[part], scale=SCALE, bias=BIAS)  # noqa: E731
    else:
        loss = lambda x, y: LOSSES[name](x, y, None)  # noqa: E731
    assert torch.autograd.gradcheck(loss, (x, y))


def test_siglip_is_open_clips(sides):
    x, y = (each.requires_grad_() for each in sides)
    ours, slopes = value_and_gradient(sigmoid_loss(x, y, own, scale=SCALE, bias=BIAS), x, y)
    peer, gradients = value_and_gradient(SigLipLoss()(x, y, SCALE.double(), BIAS.double()), x, y)
    assert ours == pytest.approx(peer, rel=1e-6)
    for slope, gradient in zip(slopes, gradients, strict=True):
        torch.testing.assert_close(slope, gradient, rtol=1e-5, atol=1e-7)


def test_matches_are_exponential_in_the_similarity_and_the_own_one_is_whole():
    similarity = torch.tensor([[0.9, 1.0, 0.5], [1.0, 0.2, -1.0]])
    found = match_targets(similarity, torch.tensor([0, 2]), temperature=0.1)
    expected = [[1.0, 1.0, math.exp(-5)], [1.0, math.exp(-8), 1.0]]
    torch.testing.assert_close(found, torch.tensor(expected))
    cold = match_targets(similarity, torch.tensor([0, 2]), temperature=1e-4)
    torch.testing.assert_close(cold, torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]))


def test_clip_lite_by_hand_and_where_nothing_is_told_apart():
    matched, other = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 0.0])
    by_hand = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1)) + math.log1p(math.exp(0.5)) + math.log(2)) / 2
    assert jensen_shannon_loss(matched, other).item() == pytest.approx(by_hand, rel=1e-6)
    assert jensen_shannon_loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(2 * math.log(2))


def test_cacr_by_its_formula_and_in_any_order_of_the_negatives(sides):
    x, y = sides
    d = torch.cdist(x, y).square()
    terms = []
    for i in range(N):
        others = torch.cat([d[i, :i], d[i, i + 1 :]])
        weights = torch.softmax(-others, 0)
        assert weights.sum().item() == pytest.approx(1)
        terms.append(1.5 * d[i, i] - 0.5 * (weights * others).sum())
    assert LOSSES["cacr"](x, y, None).item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-10)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    moved = Opposed(x, y[order], order.argsort(), order.argsort()[:, None])
    assert attract_and_repel(moved, attraction=1.5, repulsion=0.5).item() == pytest.approx(
        LOSSES["cacr"](x, y, None).item(), rel=1e-12
    )


def test_with_one_negative_cacr_is_a_difference_of_distances(sides):
    x, y = (each[:2] for each in sides)
    d = torch.cdist(x, y).square()
    expected = (d[0, 0] - d[0, 1] + d[1, 1] - d[1, 0]) / 2
    found = attract_and_repel(opposed(x, y), attraction=1.0, repulsion=1.0)
    torch.testing.assert_close(found, expected)


def test_mw_is_log_2_where_all_are_alike_and_follows_the_auc(sides):
    x, y = sides
    same = x[:1].repeat(N, 1)
    assert mann_whitney_loss(opposed(same, same), temperature=0.1).item() == pytest.approx(math.log(2))
    assert mann_whitney_loss(opposed(x, x), temperature=0.01).item() < 1e-3
    losses, areas = [], []
    for noise in np.linspace(0, 3, 12):
        z = F.normalize(x + noise * y, dim=1)
        cosines = (z @ x.T).numpy()
        losses.append(mann_whitney_loss(opposed(z, x), temperature=0.05).item())
        areas.append(np.mean([roc_auc_score(np.arange(N) == i, cosines[i]) for i in range(N)]))
    assert np.corrcoef(losses, areas)[0, 1] < -0.9
    s = x @ y.T
    brute = [F.softplus((s[i, j] - s[i, i]) / 0.2) for i in range(N) for j in range(N) if i != j]
    assert LOSSES["mw"](x, y, None).item() == pytest.approx(torch.stack(brute).mean().item(), rel=1e-12)


def test_aucs_inner_solution_is_two_variances_and_a_squared_margin(sides):
    """At the best centres and dual number, of cosines s+ and s-: Var s+ + Var s- + (margin + E s- - E s+)^2."""
    x, y = sides
    s = x @ y.T
    near, far = s.diagonal(), s[~torch.eye(N, dtype=torch.bool)]
    dual = 1 + far.mean() - near.mean()
    assert dual > 0
    best = {"centres": torch.stack([near.mean(), far.mean()]).requires_grad_(), "dual": dual.clone().requires_grad_()}
    loss = auc_margin_loss(opposed(x, y), margin=1.0, **best)
    expected = near.var(correction=0) + far.var(correction=0) + dual.square()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
    slopes = torch.autograd.grad(loss, list(best.values()))
    assert all(each.abs().max() < 1e-10 for each in slopes)


def test_aucs_dual_number_rises_while_the_margin_is_not_kept(sides):
    x, y = sides
    dual = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    loss = auc_margin_loss(opposed(x, y), centres=torch.zeros(2).double(), dual=dual, margin=1.0)
    (slope,) = torch.autograd.grad(loss, dual)
    s = x @ y.T
    missing = 1 + s[~torch.eye(N, dtype=torch.bool)].mean() - s.diagonal().mean()
    assert slope.item() == pytest.approx(-2 * missing.item(), rel=1e-10)  # descent raises it


def test_terms_of_the_gap_by_hand_and_as_reported(sides):
    x, y = sides
    assert alignment(x, y).item() == pytest.approx((2 - 2 * (x * y).sum(1)).mean().item(), rel=1e-12)
    assert uniformity(x).item() == pytest.approx(spread_report(x, y)["uniformity"].item(), rel=1e-10)
    first, second = x[:2], y[:2]
    crossed = [(4 * (first[i] @ second[1 - i]) - 4).exp() for i in range(2)]
    assert cross_uniformity(first, second).item() == pytest.approx(math.log(sum(crossed).item() / 2), rel=1e-12)


def test_assignments_use_all_prototypes_equally():
    scores = unit_rows(60, D, seed=2) @ unit_rows(12, D, seed=3).T
    few = sinkhorn(scores, epsilon=0.05, iterations=3)
    torch.testing.assert_close(few.sum(1), torch.ones(60, dtype=torch.float64))
    many = sinkhorn(scores, epsilon=0.05, iterations=200)
    torch.testing.assert_close(many.sum(0), torch.full((12,), 5.0, dtype=torch.float64), rtol=1e-3, atol=0)
    assert (few.sum(0) - 5).abs().max() < (scores.div(0.05).softmax(1).sum(0) - 5).abs().max()
    same = sinkhorn(scores[:1].repeat(7, 1), epsilon=0.05, iterations=3)
    torch.testing.assert_close(same, torch.full((7, 12), 1 / 12, dtype=torch.float64))


def test_swav_is_lightlys():
    prototypes = unit_rows(12, D, seed=3)
    views = [unit_rows(30, D, seed=seed).requires_grad_() for seed in (4, 5)]
    scores = [each @ prototypes.T for each in views]
    assigned = [sinkhorn(each, epsilon=0.05, iterations=3) for each in reversed(scores)]
    ours = sum(contrastive(each / 0.1, targets) for each, targets in zip(scores, assigned, strict=True)) / 2
    peer = SwaVLoss(temperature=0.1, sinkhorn_iterations=3, sinkhorn_epsilon=0.05)
    expected = peer([each @ prototypes.T for each in views], [])
    found, slopes = value_and_gradient(ours, *views)
    value, gradients = value_and_gradient(expected, *views)
    assert found == pytest.approx(value, rel=1e-8)
    for slope, gradient in zip(slopes, gradients, strict=True):
        torch.testing.assert_close(slope, gradient, rtol=1e-7, atol=1e-9)
