"""Backbones, projectors and the text tower."""

import pytest
import torch
import torchvision
from pydantic import ValidationError

from xclr.recipe import TrainConfig
from xclr.training.model import TextTower, build_backbone, memory_format, projector

VIT = TrainConfig(backbone="vit-small", image_size=32)


@pytest.mark.parametrize(
    ("config", "features"),
    [
        (TrainConfig(backbone="resnet-mini", width=4), 32),
        (TrainConfig(backbone="resnet-mini", width=6), 48),
        (TrainConfig(backbone="resnet18"), 512),
    ],
    ids=["mini of 4", "mini of 6", "resnet18"],
)
@pytest.mark.parametrize("side", [16, 32])
def test_a_backbone_gives_its_number_of_features_at_any_size(config, features, side):
    backbone, count = build_backbone(config)
    out = backbone(torch.randn(3, 3, side, side))
    assert count == features and out.shape == (3, features)
    assert out.isfinite().all()


@pytest.mark.parametrize(("name", "features"), [("resnet34", 512), ("resnet50", 2048)])
def test_the_larger_backbones_say_their_number_of_features(name, features):
    assert build_backbone(TrainConfig(backbone=name))[1] == features


@pytest.mark.parametrize(
    ("name", "features", "millions"), [("vit-small", 384, 21.7), ("vit-base", 768, 85.8)]
)  # of arXiv 2010.11929 (B) and 2012.12877 (S), without their heads
def test_the_vision_transformers_have_their_papers_sizes(name, features, millions):
    backbone, count = build_backbone(TrainConfig(backbone=name, image_size=224))
    assert count == features
    assert sum(each.numel() for each in backbone.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_a_vision_transformer_gives_its_features():
    backbone, count = build_backbone(TrainConfig(backbone="vit-small", image_size=32))
    assert backbone(torch.randn(2, 3, 32, 32)).shape == (2, count)


def test_a_picture_that_patches_do_not_fill_is_refused():
    with pytest.raises(ValidationError, match="image_size 40 is no multiple of 16"):
        TrainConfig(backbone="vit-small", image_size=40)


@pytest.mark.parametrize("config", [TrainConfig(width=4), TrainConfig(backbone="resnet18"), VIT], ids=str)
@pytest.mark.slow
def test_computing_activations_twice_changes_neither_gradients_nor_statistics(config):
    pictures, found = torch.randn(4, 3, 32, 32), []
    for twice in (False, True):
        torch.manual_seed(0)
        backbone, _ = build_backbone(config.model_copy(update={"activation_checkpointing": twice}))
        backbone(pictures).square().mean().backward()
        found.append((backbone.state_dict(), {key: each.grad for key, each in backbone.named_parameters()}))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-7)


def test_computing_activations_twice_keeps_fewer():
    kept = []
    for twice in (False, True):
        backbone, _ = build_backbone(TrainConfig(backbone="resnet18", activation_checkpointing=twice))
        held = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, held=held: held.append(x.numel()) or x, lambda x: x):
            backbone(torch.randn(4, 3, 32, 32))
        kept.append(sum(held))
    assert kept[1] < kept[0] / 2


def test_the_weights_follow_the_seed():
    torch.manual_seed(3)
    first = build_backbone(TrainConfig())[0].state_dict()
    torch.manual_seed(3)
    again = build_backbone(TrainConfig())[0].state_dict()
    other = build_backbone(TrainConfig())[0].state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_the_output_does_not_depend_on_the_memory_format():
    backbone, _ = build_backbone(TrainConfig(width=4))
    pictures = torch.randn(4, 3, 16, 16)
    last = pictures.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(backbone.eval()(pictures), backbone(last), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [4, 6, 8, 16])
def test_gradients_of_narrow_networks_are_those_without_onednn(width):
    config = TrainConfig(width=width)
    torch.manual_seed(0)
    backbone, _ = build_backbone(config)
    pictures = torch.randn(64, 3, 16, 16).contiguous(memory_format=memory_format(config))
    weights = list(backbone.parameters())
    for _ in range(8):  # where memory is overwritten, the process is soon aborted
        found = torch.autograd.grad(backbone(pictures).square().mean(), weights)
    with torch.backends.mkldnn.flags(enabled=False):
        plain = torch.autograd.grad(backbone(pictures).square().mean(), weights)
    for mine, without in zip(found, plain, strict=True):
        assert (mine - without).norm() < 1e-2 * without.norm()


def test_the_projector_has_one_hidden_layer_and_the_configured_sizes():
    head = projector(20, TrainConfig(projector_hidden=12, projector_out=5))
    assert head(torch.randn(7, 20)).shape == (7, 5)
    assert [tuple(each.shape) for each in head.parameters() if each.ndim == 2] == [(12, 20), (5, 12)]


def test_a_projector_as_simclrs_code_has_ends_with_a_norm_and_a_linear_one_is_one_product():
    head = projector(20, TrainConfig(projector_hidden=12, projector_out=5, projector="mlp-bn"))
    out = head(torch.randn(64, 20))
    torch.testing.assert_close(out.mean(0), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(5), rtol=0, atol=1e-3)
    assert [name for name, each in head.named_parameters() if each.ndim == 1] == [
        "1.weight",
        "1.bias",
        "4.weight",
        "4.bias",
    ]
    (weight,) = projector(20, TrainConfig(projector_out=5, projector="linear")).parameters()
    assert weight.shape == (5, 20)


@pytest.mark.parametrize("name", ["resnet-mini", "resnet18", "resnet50"])
def test_residual_blocks_may_begin_as_the_identity(name):
    """Torchvision's zero_init_residual is the reference where it has one."""
    torch.manual_seed(0)
    found, _ = build_backbone(TrainConfig(backbone=name, width=4, zero_init_residual=True))
    zero = {key for key, each in found.state_dict().items() if key.endswith("weight") and not each.any()}
    if name == "resnet-mini":
        assert zero == {f"{block}.body.4.weight" for block in range(3, 7)}
    else:
        peer = getattr(torchvision.models, name)(zero_init_residual=True)
        assert zero == {key for key, each in peer.state_dict().items() if key.endswith("weight") and not each.any()}
    with pytest.raises(ValueError, match="zero_init_residual is for ResNets"):
        TrainConfig(backbone="vit-small", image_size=32, zero_init_residual=True)


@pytest.fixture
def tower():
    torch.manual_seed(0)
    return TextTower(vocabulary=30, length=12, out=6, width=16)


TOKENS = torch.tensor([[5, 7, 9], [4, 0, 0], [3, 3, 0]])


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
def test_more_padding_changes_no_caption(tower, training):
    tower.train(training)
    padded = torch.cat((TOKENS, torch.zeros(3, 9, dtype=torch.long)), dim=1)
    assert tower(TOKENS).shape == (3, 6)
    torch.testing.assert_close(tower(padded), tower(TOKENS), rtol=1e-5, atol=1e-6)


def test_a_caption_does_not_depend_on_its_neighbours_in_the_batch(tower):
    torch.testing.assert_close(tower(TOKENS)[1], tower(torch.tensor([[4]]))[0], rtol=1e-5, atol=1e-6)


def test_words_and_their_order_matter(tower):
    out = tower(torch.tensor([[5, 7], [7, 5], [5, 8]]))
    assert (out[0] - out[1]).abs().max() > 1e-4 and (out[0] - out[2]).abs().max() > 1e-4


def test_padding_gets_no_gradient(tower):
    tower(TOKENS).square().sum().backward()
    gradient = tower.words.weight.grad
    assert gradient[0].abs().max() == 0
    assert all(gradient[word].abs().max() > 0 for word in (3, 4, 5, 7, 9))
