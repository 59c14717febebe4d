"""The loss and every gradient are those of one process on the concatenated batch, whatever the world size."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.kit.ranks import run_on_ranks, shard
from xclr.objective import (
    anchor_index,
    class_targets,
    contrastive,
    cosine_logits,
    excluding,
    gather_rows,
    gather_views,
    identity_targets,
    itself_and_pair,
    pair_targets,
    self_mask,
    soft_targets,
    without,
    xclr_loss,
)
from xclr.training.norm import SyncBatchNorm, convert_sync_batchnorm

SAMPLES, TAU = 8, 0.1
VIEW_TARGETS = ("simclr", "supcon", "xclr", "dcl")
OBJECTIVES = (*VIEW_TARGETS, "clip")


def batch():
    """Pictures [2N, 3, 6, 6] (all first views, then all second), caption vectors [N, 5], labels [N]."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(2 * SAMPLES, 3, 6, 6, generator=generator, dtype=torch.float64)
    vectors = F.normalize(torch.randn(SAMPLES, 5, generator=generator, dtype=torch.float64) + 0.5, dim=1)
    return pictures, vectors, torch.tensor([0, 1, 1, 2, 0, 3, 2, 1])


class Tower(nn.Sequential):
    """A small network with a BatchNorm of each kind."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Linear(8, 6),
        )


class ViewContrast(nn.Module):
    """Image-image objectives: local anchors, candidates of all ranks."""

    def __init__(self, name):
        super().__init__()
        self.name, self.tower = name, Tower()

    def forward(self, pictures, vectors, labels):
        z = F.normalize(self.tower(pictures), dim=1)
        candidates, anchors = gather_views(z), anchor_index(len(labels))
        n = len(candidates)
        exclude = self_mask(anchors, n)
        targets = self.targets(vectors, labels, anchors, n)
        log_weights = without(itself_and_pair(anchors, n), n) if self.name == "dcl" else excluding(exclude)
        return contrastive(cosine_logits(z, candidates, temperature=TAU), targets, log_weights)

    def targets(self, vectors, labels, anchors, n):
        if self.name == "supcon":
            return class_targets(labels.repeat(2), gather_rows(labels).repeat(2), anchors, dtype=torch.float64)
        if self.name == "xclr":
            similarity = (vectors @ gather_rows(vectors).T).repeat(2, 2)
            return soft_targets(similarity, temperature=TAU, exclude=self_mask(anchors, n))
        return pair_targets(anchors, n)


class PictureText(nn.Module):
    """CLIP on first views with a learned scale, which is a parameter inside the loss."""

    def __init__(self):
        super().__init__()
        self.tower, self.text = Tower(), nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 6))
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, pictures, vectors, labels):
        z = F.normalize(self.tower(pictures[: len(labels)]), dim=1)
        t = F.normalize(self.text(vectors), dim=1)
        targets = identity_targets(anchor_index(len(labels), views=1), len(gather_rows(labels)))
        temperature = (-self.log_scale).exp()
        to_text = contrastive(cosine_logits(z, gather_rows(t), temperature=temperature), targets)
        to_picture = contrastive(cosine_logits(t, gather_rows(z), temperature=temperature), targets)
        return (to_text + to_picture) / 2


def build(name):
    torch.manual_seed(1)
    return (PictureText() if name == "clip" else ViewContrast(name)).double()


def state_after(model, module, arguments):
    """The loss, every gradient and every buffer after one backward pass."""
    loss = model(*arguments)
    loss.backward()
    gradients = {key: parameter.grad for key, parameter in module.named_parameters()}
    return {"loss": loss.detach(), "gradients": gradients, "buffers": dict(module.named_buffers())}


def on_one_process(name):
    model = build(name)
    return state_after(model, model, batch())


def on_a_rank(rank, world):
    pictures, vectors, labels = batch()
    mine = shard(pictures, rank, world, views=2), shard(vectors, rank, world), shard(labels, rank, world)
    results = {}
    for name in OBJECTIVES:
        module = convert_sync_batchnorm(build(name))
        results[name] = state_after(DistributedDataParallel(module), module, mine)
    indices = torch.arange(2 * SAMPLES)
    results["order"] = {
        "views": gather_views(shard(indices, rank, world, views=2)),
        "anchors": anchor_index(SAMPLES // world) - shard(indices, rank, world, views=2),
        "labels": gather_rows(mine[2]),
        "flags": gather_rows(mine[2] > 1),
        "transposed": gather_rows(shard(pictures, rank, world, views=2)[:, 0].mT)[:, :, 0],
        "one": gather_rows(shard(vectors, rank, world).bfloat16()),
    }
    results["gathered gradient"] = gathered_gradient(rank)
    return results


def gathered_gradient(rank):
    """Of sum_r (r + 1) * (all rows, weighted by their column): what each rank's rows receive from all ranks."""
    x = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    rows = gather_rows(x)
    weights = torch.arange(rows.numel(), dtype=torch.float64).view_as(rows)
    ((rank + 1) * weights * rows).sum().backward()
    return x.grad


@pytest.fixture(scope="module")
def single():
    return {name: on_one_process(name) for name in OBJECTIVES}


WORLDS = [pytest.param(2, id="two", marks=pytest.mark.slow), pytest.param(4, id="four", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=WORLDS)
def ranks(request, tmp_path_factory):
    return run_on_ranks(on_a_rank, request.param, tmp_path_factory.mktemp("ranks"))


def assert_equal(got, expected):
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, rtol=1e-10, atol=1e-10, msg=lambda text, key=key: f"{key}: {text}")


def test_losses_average_to_the_single_process_loss(ranks, single):
    for name in OBJECTIVES:
        mean = torch.stack([rank[name]["loss"] for rank in ranks]).mean()
        assert mean.item() == pytest.approx(single[name]["loss"].item(), abs=1e-10), name


def test_every_gradient_is_the_single_process_gradient(ranks, single):
    for name in OBJECTIVES:
        assert all(gradient.abs().max() > 1e-4 for gradient in shown(single[name]).values())
        for rank in ranks:
            assert_equal(rank[name]["gradients"], single[name]["gradients"])


def shown(result):
    """Gradients that are not zero by construction: a bias before BatchNorm gets none."""
    before_norm = ("tower.0.bias", "tower.4.bias", "text.0.bias")
    return {key: value for key, value in result["gradients"].items() if key not in before_norm}


def test_running_statistics_are_the_single_process_ones(ranks, single):
    for name in OBJECTIVES:
        for rank in ranks:
            assert_equal(rank[name]["buffers"], single[name]["buffers"])


def test_rows_are_gathered_in_canonical_order(ranks):
    pictures, vectors, labels = batch()
    world = len(ranks)
    for rank in ranks:
        order = rank["order"]
        assert order["views"].tolist() == list(range(2 * SAMPLES))
        assert (order["anchors"] == 0).all()
        assert torch.equal(order["labels"], labels) and torch.equal(order["flags"], labels > 1)
        assert torch.equal(order["one"], vectors.bfloat16())
        by_rank = torch.cat([shard(pictures, each, world, views=2) for each in range(world)])
        assert torch.equal(order["transposed"], by_rank[:, 0, 0])


def test_backward_through_the_gather_sums_over_ranks(ranks):
    world = len(ranks)
    weights = torch.arange(2 * world * 3, dtype=torch.float64).view(2 * world, 3) * (world * (world + 1) / 2)
    assert torch.equal(torch.cat([rank["gathered gradient"] for rank in ranks]), weights)


def test_one_process_takes_the_same_code_path_as_the_plain_loss(single):
    """Without a process group gathering is the identity: the X-CLR above is xclr_loss on the whole batch."""
    pictures, vectors, labels = batch()
    model = build("xclr")
    assert isinstance(convert_sync_batchnorm(build("xclr")).tower[1], SyncBatchNorm)
    z = F.normalize(model.tower(pictures), dim=1)
    similarity = (vectors @ vectors.T).repeat(2, 2)
    assert single["xclr"]["loss"].item() == pytest.approx(xclr_loss(z, similarity).item(), abs=1e-12)
    assert gather_rows(labels) is labels and gather_views(pictures) is pictures
    assert anchor_index(SAMPLES).tolist() == list(range(2 * SAMPLES))


def test_an_odd_number_of_rows_is_not_two_views():
    with pytest.raises(ValueError, match="two views"):
        gather_views(torch.zeros(3, 2))
