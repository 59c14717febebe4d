"""The same value and the same gradient as the published implementations of SimCLR, DCL, SupCon and CLIP."""

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import DCLLoss, DCLWLoss, NTXentLoss
from open_clip.loss import ClipLoss
from pytorch_metric_learning.losses import SupConLoss

from tests.kit.batches import classes, unit_rows, value_and_gradient, views
from xclr.objective import (
    class_targets,
    contrastive,
    cosine_logits,
    excluding,
    identity_targets,
    itself_and_pair,
    pair_targets,
    self_mask,
    weighted_pair_targets,
    without,
)

N, D = 12, 7
ANCHORS = torch.arange(2 * N)
ITSELF = self_mask(ANCHORS, 2 * N)


def assert_same(ours, peer, *leaves, tolerance=1e-10):
    value, gradients = value_and_gradient(ours, *leaves)
    expected, slopes = value_and_gradient(peer, *leaves)
    assert value == pytest.approx(expected, rel=tolerance)
    for gradient, slope in zip(gradients, slopes, strict=True):
        torch.testing.assert_close(gradient, slope, rtol=tolerance, atol=tolerance)


def view_logits(z, tau):
    """The peers normalise; so does this, and the gradient passes through it."""
    unit = F.normalize(z, dim=1)
    return cosine_logits(unit, unit, temperature=tau)


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_simclr_is_lightlys_ntxent(tau):
    z = views(N, D)
    ours = contrastive(view_logits(z, tau), pair_targets(ANCHORS, 2 * N), excluding(ITSELF))
    assert_same(ours, NTXentLoss(temperature=tau)(*z.chunk(2)), z)


def test_dcl_is_lightlys():
    z = views(N, D)
    ours = contrastive(
        view_logits(z, 0.1), pair_targets(ANCHORS, 2 * N), without(itself_and_pair(ANCHORS, 2 * N), 2 * N)
    )
    assert_same(ours, DCLLoss(temperature=0.1)(*z.chunk(2)), z)


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
def test_dclw_is_lightlys_with_the_weight_on_the_positive():
    z = views(N, D)
    targets = weighted_pair_targets(*F.normalize(z, dim=1).chunk(2), ANCHORS, sigma=0.5)
    ours = contrastive(view_logits(z, 0.1), targets, without(itself_and_pair(ANCHORS, 2 * N), 2 * N))
    assert_same(ours, DCLWLoss(temperature=0.1, sigma=0.5)(*z.chunk(2)), z)


@pytest.mark.parametrize("count", [2, 5])
def test_supcon_is_pytorch_metric_learnings(count):
    z, labels = views(N, D), classes(N, count)
    targets = class_targets(labels, labels, ANCHORS, dtype=torch.float64)
    ours = contrastive(view_logits(z, 0.1), targets, excluding(ITSELF))
    assert_same(ours, SupConLoss(temperature=0.1)(z, labels), z)


def test_clip_is_open_clips_with_a_learned_scale():
    pictures, texts = unit_rows(N, D, seed=1).requires_grad_(), unit_rows(N, D, seed=2).requires_grad_()
    scale = torch.tensor(1 / 0.07, dtype=torch.float64, requires_grad=True)
    targets = identity_targets(torch.arange(N), N)
    directions = ((pictures, texts), (texts, pictures))
    ours = sum(contrastive(cosine_logits(a, b, temperature=1 / scale), targets) for a, b in directions) / 2
    assert_same(ours, ClipLoss()(pictures, texts, scale), pictures, texts, scale)
