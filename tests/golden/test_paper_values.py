"""Four numbers that any implementation of the equations must give, in float64."""

import pytest
import torch
import torch.nn.functional as F

from xclr.objective import (
    class_targets,
    contrastive,
    cosine_logits,
    excluding,
    itself_and_pair,
    pair_targets,
    self_mask,
    soft_targets,
    without,
    xclr_loss,
)

N, TAU = 4, 0.1
GOLDEN = {
    "xclr": 7.117692554591785,
    "simclr": 1.6982126121046894,
    "supcon": 6.997958062120487,
    "dcl": 1.465670694809477,
}


def projections(dtype=torch.float64):
    """z [8, 3]: rows of sin(1 + 3i + j^2) + 0.5 cos(i j), normalised; rows 0-3 are view 1, rows 4-7 view 2."""
    i = torch.arange(2 * N, dtype=torch.float64)[:, None]
    j = torch.arange(3, dtype=torch.float64)
    return F.normalize(torch.sin(1 + 3 * i + j.square()) + 0.5 * torch.cos(i * j), dim=1).to(dtype)


def labels():
    return torch.tensor([0, 1, 1, 2]).repeat(2)


def class_similarity(dtype=torch.float64):
    graph = torch.tensor([[1, 0.6, 0.2], [0.6, 1, 0.3], [0.2, 0.3, 1]], dtype=dtype)
    return graph[labels()][:, labels()]


def objective_value(name, dtype):
    anchors, n = torch.arange(2 * N), 2 * N
    itself = self_mask(anchors, n)
    targets, log_weights = {
        "xclr": (soft_targets(class_similarity(dtype), temperature=TAU, exclude=itself), excluding(itself)),
        "simclr": (pair_targets(anchors, n), excluding(itself)),
        "supcon": (class_targets(labels(), labels(), anchors, dtype=dtype), excluding(itself)),
        "dcl": (pair_targets(anchors, n), without(itself_and_pair(anchors, n), n)),
    }[name]
    z = projections(dtype)
    return contrastive(cosine_logits(z, z, temperature=TAU), targets, log_weights)


@pytest.mark.parametrize("name", GOLDEN)
def test_builders_give_the_golden_value(name):
    assert objective_value(name, torch.float64).item() == pytest.approx(GOLDEN[name], abs=1e-12)


def test_xclr_loss_gives_the_golden_value():
    loss = xclr_loss(projections(), class_similarity(), temperature=TAU, target_temperature=TAU)
    assert loss.item() == pytest.approx(GOLDEN["xclr"], abs=1e-12)


def test_the_defaults_are_the_papers_temperatures():
    assert xclr_loss(projections(), class_similarity()).item() == pytest.approx(GOLDEN["xclr"], abs=1e-12)


def test_a_graph_over_samples_is_expanded_to_views_by_repeat():
    over_samples = class_similarity()[:N, :N]
    assert xclr_loss(projections(), over_samples.repeat(2, 2)).item() == pytest.approx(GOLDEN["xclr"], abs=1e-12)


def test_masking_one_softmax_alone_gives_another_number():
    """With the diagonal left in the targets the value moves in its first digits: the golden value sees the mistake."""
    itself = self_mask(torch.arange(2 * N), 2 * N)
    logits = cosine_logits(projections(), projections(), temperature=TAU)
    wrong = contrastive(logits, soft_targets(class_similarity(), temperature=TAU), excluding(itself))
    assert abs(wrong.item() - GOLDEN["xclr"]) > 0.1


@pytest.mark.parametrize("name", GOLDEN)
def test_float32_keeps_six_digits(name):
    loss = objective_value(name, torch.float32)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(GOLDEN[name], rel=2e-6)
