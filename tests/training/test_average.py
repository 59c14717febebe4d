"""The running average of a network: what it follows, what it keeps, and what is compared stage by stage."""

import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.kit.home import RECIPE, TRAIN, build, training_data
from tests.kit.objectives import CONFIGS
from xclr import schema
from xclr.captions.shared import SHARED
from xclr.errors import RecipeError
from xclr.recipe import MoCHiConfig, MoCoConfig, TrainConfig
from xclr.training import Learner, Materials, Rank, build_backbone, build_objective, checkpoint
from xclr.training.average import Average, distance
from xclr.training.meter import Meter
from xclr.training.model import stages_of, with_maps
from xclr.training.objectives.materials import Averaged, Averaging, Looked
from xclr.training.stages import pretrain

CPU = torch.device("cpu")


def pair(momentum=0.75):
    torch.manual_seed(0)
    backbone, head = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), nn.Linear(3, 2)
    return backbone, head, Average(backbone, Averaging(head, momentum))


def test_its_weights_follow_and_its_statistics_are_its_own():
    backbone, head, average = pair(momentum=0.75)
    before = [each.clone() for each in (average.backbone[0].weight, average.head.bias)]
    with torch.no_grad():
        for each in (*backbone.parameters(), *head.parameters()):
            each.add_(torch.randn_like(each))
    average.follow(backbone)
    after = average.backbone[0].weight, average.head.bias
    for own, old, new in zip(after, before, (backbone[0].weight, head.bias), strict=True):
        torch.testing.assert_close(own, 0.75 * old + 0.25 * new)
    assert average.backbone[1].running_mean.eq(0).all()
    views = torch.randn(16, 4)
    average(views)
    torch.testing.assert_close(
        average.backbone[1].running_mean, 0.1 * average.backbone[0](views).mean(0), rtol=1e-5, atol=1e-6
    )


def test_it_normalises_with_its_batch_drops_nothing_out_and_has_no_gradient():
    backbone, head = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)), nn.Linear(3, 2)
    average = nn.ModuleList([Average(backbone, Averaging(head, 0.9))]).train()[0]
    views = torch.randn(8, 4)
    (features,) = average(views)
    torch.testing.assert_close(features.mean(0), torch.zeros(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(features.var(0, correction=0), torch.ones(3), rtol=1e-3, atol=0)
    z = average.project(features)
    torch.testing.assert_close(z, F.normalize(head(features), dim=1))
    assert not z.requires_grad and not any(each.requires_grad for each in average.parameters())
    average.eval()
    torch.testing.assert_close(average(views)[0][:3], average(views[:3])[0])


def test_maps_are_compared_with_those_of_the_other_view():
    maps = [torch.randn(4, 2, 3, 3), torch.randn(4, 5)]
    assert distance(maps, [each.roll(2, 0) for each in maps]) == 0
    shifted = [(each + shift).roll(2, 0) for each, shift in zip(maps, (1.0, 2.0), strict=True)]
    assert distance(maps, shifted).item() == pytest.approx(1 + 4)


@pytest.mark.parametrize(
    ("backbone", "sizes"),
    [
        ("resnet-mini", [16, 8, 4, 2]),
        ("resnet34", [8, 4, 2, 1]),
        ("timm/resnet10t", [8, 4, 2, 1]),
    ],
)
def test_stages_of_a_residual_network_halve_its_maps(backbone, sizes):
    network, features = build_backbone(TrainConfig(backbone=backbone, image_size=32, width=4))
    views = torch.randn(2, 3, 32, 32)
    out, *maps = with_maps(network.eval(), views)
    assert [each.shape[2] for each in maps] == sizes
    assert torch.equal(out, network(views)) and out.shape == (2, features)
    assert not any(each._forward_hooks for each in network.modules())


def test_stages_of_a_transformer_are_fourths_of_its_blocks():
    network, _ = build_backbone(TrainConfig(backbone="timm/vit_tiny_patch16_224", image_size=32))
    assert [list(network.blocks).index(each) for each in stages_of(network)] == [2, 5, 8, 11]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"backbone": "timm/vgg11"}, "a backbone with 0 blocks has no 4 stages"),
        (
            {"backbone": "timm/efficientnet_b0_gn", "activation_checkpointing": True},
            "does not show what leaves its stages",
        ),
    ],
)
def test_a_backbone_without_stages_is_refused_by_the_plan(home, changes, says):
    recipe = RECIPE.model_copy(update={"train": TRAIN.model_copy(update={"image_size": 32} | changes)})
    data = training_data(home.artifacts)
    pretrain(recipe, MoCoConfig(), 0, data)
    with pytest.raises(RecipeError, match=says):
        pretrain(recipe, MoCoConfig(stages=0.25), 0, data)


@pytest.mark.parametrize(
    "objective", [MoCoConfig(queue=160, momentum=0.6, stages=0.1), CONFIGS["mochi"]], ids=lambda each: each.name
)
def test_average_and_queue_go_on_from_a_checkpoint(home, batches, tmp_path, objective):
    """Four steps, and two with two more by another process: the same losses, weights, queue and average."""
    config, place = TRAIN, Rank(0, 1, CPU)

    def learner():
        return Learner.of(build(objective, home.paths, config), config, place)

    def losses(own, first, last):
        stream = batches.stream(first, last, place, own.model.look)
        return [own.step(batch, 1.0, step)[0].loss.item() for step, batch in enumerate(stream, start=first)]

    whole, begun, resumed = learner(), learner(), learner()
    torch.manual_seed(3)
    expected = losses(whole, 0, 4)
    torch.manual_seed(3)
    found = losses(begun, 0, 2)
    saved = begun.save(tmp_path, 2, Meter(config.batch_size, place, {}), None)
    assert resumed.restore(saved) == 2
    assert found + losses(resumed, 2, 4) == expected
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    state = checkpoint.load(saved)["model"]
    assert {"average.head.0.weight", "objective.queue", "objective.pictures"} <= state.keys()


def test_the_queue_holds_the_newest_keys_and_knows_whose_they_are(home, batches):
    model = build(MoCoConfig(queue=100), home.paths, TRAIN)
    learner = Learner.of(model, TRAIN, Rank(0, 1, CPU))
    shown = list(batches.stream(0, 2, learner.place, model.look))
    assert set(model.objective.pictures.tolist()) == {-1}
    for step, batch in enumerate(shown):
        z = model.average.project(*model.average(batch.views))
        learner.step(batch, 1.0, step)
        torch.testing.assert_close(model.objective.queue[:64], z)
        assert model.objective.pictures[:64].tolist() == batch.rows.repeat(2).tolist()
    assert model.objective.pictures[64:].tolist() == shown[0].rows.repeat(2)[:36].tolist()
    assert model.objective.queue.shape == (100, TRAIN.projector_out)


def test_negatives_are_mixed_after_their_share_of_the_training(home):
    config = MoCHiConfig(queue=32, hardest=4, mixed=5, mixed_with_query=2, mix_after=0.5)
    materials = Materials(home.paths, 6, TRAIN, steps=4)
    objective, rows = build_objective(config, materials), torch.arange(4)
    features, z = torch.randn(8, 6), F.normalize(torch.randn(8, TRAIN.projector_out), dim=1)
    compared = []
    for step in range(4):
        chance = objective(features, rows, Looked(graph=rows + 10 * step), Averaged(z)).chance()
        compared.append(round(chance.exp().item()))
    assert compared == [33, 33, 40, 40]


def test_keys_of_another_caption_of_the_own_picture_are_no_negatives(home, tmp_path):
    """Rows 0 to 7 show four pictures, two captions each."""
    pairs = [[row, row - row % 2] for row in range(8)]
    table = pa.table({"row_id": [row for row, _ in pairs], "first": [first for _, first in pairs]})
    schema.write(table.cast(schema.SHARED_PICTURES), tmp_path / SHARED, schema.SHARED_PICTURES, {})
    objective = build_objective(MoCoConfig(queue=16), Materials({"captions": tmp_path}, 6, TRAIN))
    features, z = torch.randn(8, 6), F.normalize(torch.randn(8, TRAIN.projector_out), dim=1)
    for rows, negatives in (([0, 2, 4, 6], 16), ([1, 3, 5, 7], 14), ([0, 3, 5, 6], 12)):
        shown = torch.tensor(rows)
        outcome = objective(features, shown, objective.look(shown), Averaged(z))
        assert outcome.chance().exp().item() == pytest.approx(1 + negatives)
