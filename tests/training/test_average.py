"""The running average of a network: what it follows, what it keeps, and what is compared stage by stage."""

import pytest
import torch
from torch import nn

from tests.kit.home import TRAIN, build
from xclr.errors import RecipeError
from xclr.recipe import MoCoConfig, TrainConfig
from xclr.training import Batch, Learner, Rank, build_backbone, checkpoint
from xclr.training.average import Average, distance
from xclr.training.meter import Meter
from xclr.training.model import check_stages, stages_of, with_maps
from xclr.training.objectives.materials import Averaging

CPU = torch.device("cpu")


def pair(momentum=0.75):
    torch.manual_seed(0)
    backbone, head = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), nn.Linear(3, 2)
    return backbone, head, Average(backbone, head, Averaging(momentum))


def test_it_is_the_mean_of_all_steps_and_later_a_running_one():
    backbone, head, average = pair(momentum=0.75)
    seen, before = [], []
    for step in range(1, 8):
        with torch.no_grad():
            for each in (*backbone.parameters(), *head.parameters()):
                each.add_(torch.randn_like(each))
        backbone(torch.randn(16, 4))  # new statistics
        average.follow(backbone, head)
        seen.append([each.clone() for each in (backbone[0].weight, head.bias, backbone[1].running_var)])
        own = average.backbone[0].weight, average.head.bias, average.backbone[1].running_var
        if step <= 4:
            expected = [torch.stack(each).mean(0) for each in zip(*seen, strict=True)]
        else:
            expected = [0.75 * a + 0.25 * b for a, b in zip(before, seen[-1], strict=True)]
        torch.testing.assert_close(list(own), expected, rtol=1e-5, atol=1e-6)
        before = [each.clone() for each in own]


def test_it_normalises_with_its_statistics_and_has_no_gradient():
    backbone, _, average = pair()
    average.train()
    views = torch.randn(8, 4)
    (whole,), (part,) = average(views), average(views[:3])
    torch.testing.assert_close(whole[:3], part)
    assert not whole.requires_grad and not any(each.requires_grad for each in average.parameters())
    assert average.backbone[1].num_batches_tracked == 0
    assert not torch.allclose(backbone(views)[:3], backbone(views[:3])), "the network itself looks at its batch"
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(8))


def test_maps_are_compared_with_those_of_the_other_view():
    maps = [torch.randn(4, 2, 3, 3), torch.randn(4, 5)]
    assert distance(maps, [each.roll(2, 0) for each in maps]) == 0
    shifted = [(each + shift).roll(2, 0) for each, shift in zip(maps, (1.0, 2.0), strict=True)]
    assert distance(maps, shifted).item() == pytest.approx(1 + 4)


@pytest.mark.parametrize(
    ("backbone", "sizes"),
    [
        ("resnet-mini", [8, 4, 2, 1]),
        ("resnet34", [8, 4, 2, 1]),
        ("timm/resnet10t", [8, 4, 2, 1]),
    ],
)
def test_stages_of_a_residual_network_halve_its_maps(backbone, sizes):
    network, features = build_backbone(TrainConfig(backbone=backbone, image_size=32, width=4))
    views = torch.randn(2, 3, 32, 32)
    out, *maps = with_maps(network.eval(), views)
    assert [each.shape[2] for each in maps] == ([2 * size for size in sizes] if backbone == "resnet-mini" else sizes)
    assert torch.equal(out, network(views)) and out.shape == (2, features)
    assert not any(each._forward_hooks for each in network.modules())


def test_stages_of_a_transformer_are_fourths_of_its_blocks():
    network, _ = build_backbone(TrainConfig(backbone="timm/vit_tiny_patch16_224", image_size=32))
    assert [list(network.blocks).index(each) for each in stages_of(network)] == [2, 5, 8, 11]


def test_a_backbone_without_stages_is_refused_by_the_plan():
    with pytest.raises(RecipeError, match="a backbone with 0 blocks has no 4 stages"):
        check_stages(TrainConfig(backbone="timm/vgg11", image_size=224).network)


def test_average_and_queue_go_on_from_a_checkpoint(home, batches, tmp_path):
    """Four steps, and two with two more by another process: the same losses, weights, queue and average."""
    config, place = TRAIN, Rank(0, 1, CPU)

    def learner():
        return Learner.of(build(MoCoConfig(queue=160, momentum=0.6, stages=0.1), home.paths, config), config, place)

    def losses(own, first, last):
        stream = batches.stream(first, last, place, own.model.look)
        return [own.step(batch, 1.0, step)[0].loss.item() for step, batch in enumerate(stream, start=first)]

    whole, begun, resumed = learner(), learner(), learner()
    expected = losses(whole, 0, 4)
    found = losses(begun, 0, 2)
    saved = begun.save(tmp_path, 2, Meter(config.batch_size, place, {}), None)
    assert resumed.restore(saved) == 2
    assert found + losses(resumed, 2, 4) == expected
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    state = checkpoint.load(saved)["model"]
    assert {"average.steps", "objective.queue", "objective.queue_rows"} <= state.keys() and state["average.steps"] == 2


def test_the_queue_holds_the_newest_keys_and_knows_whose_they_are(home, batches):
    model = build(MoCoConfig(queue=100), home.paths, TRAIN)
    learner = Learner.of(model, TRAIN, Rank(0, 1, CPU))
    shown = list(batches.stream(0, 2, learner.place, model.look))
    assert set(model.objective.queue_rows.tolist()) == {-1}
    for step, batch in enumerate(shown):
        (z,) = model.average(batch.views)
        learner.step(batch, 1.0, step)
        torch.testing.assert_close(model.objective.queue[:64], z)
        assert model.objective.queue_rows[:64].tolist() == batch.rows.repeat(2).tolist()
    assert model.objective.queue_rows[64:].tolist() == shown[0].rows.repeat(2)[:36].tolist()
    assert isinstance(shown[0], Batch) and model.objective.queue.shape == (100, TRAIN.projector_out)
