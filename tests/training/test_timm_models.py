"""Backbones of timm: what they give is what timm's own networks give, through training and back."""

import pytest
import timm
import torch

from tests.kit.home import RECIPE, training_data
from tests.kit.stages import commit
from xclr.errors import RecipeError
from xclr.evaluation.networks.network import open_network
from xclr.recipe import SimCLRConfig, TrainConfig
from xclr.training import pretrain
from xclr.training import stages as training_stages
from xclr.training.model import build_backbone, check_backbone
from xclr.training.norm import convert_sync_batchnorm

SIDE = 32
TINY = ("test_resnet", "test_efficientnet", "test_vit", "test_convnext")  # timm's own for tests
FIXED = {"test_vit"}  # whose pictures have one size
NORMED = ("test_resnet", "test_efficientnet", "mobilenetv3_small_050")  # plain batch norms, and those that activate


def of(name, **more):
    return TrainConfig(backbone=f"timm/{name}", image_size=SIDE, **more)


@pytest.fixture(scope="module")
def pictures():
    return torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", [*TINY, "mobilenetv3_small_050"])
def test_a_backbone_is_timms_network_without_its_classifier(name, pictures):
    torch.manual_seed(0)
    backbone, features = build_backbone(of(name))
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=0, **({"img_size": SIDE} if name in FIXED else {}))
    out = backbone.eval()(pictures)
    assert out.shape == (4, features)
    torch.testing.assert_close(out, theirs.eval()(pictures), rtol=1e-4, atol=1e-4)
    check_backbone(of(name))


@pytest.mark.parametrize("name", NORMED)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
def test_norms_over_all_ranks_go_on_activating_and_keep_their_names(name, training, pictures):
    torch.manual_seed(0)
    backbone, _ = build_backbone(of(name))
    names, expected = list(backbone.state_dict()), backbone.train(training)(pictures).detach()
    torch.manual_seed(0)
    converted = convert_sync_batchnorm(build_backbone(of(name))[0]).train(training)
    torch.testing.assert_close(converted(pictures), expected, rtol=1e-5, atol=1e-5)
    assert list(converted.state_dict()) == names


def test_a_norm_that_does_something_else_is_refused():
    class Odd(torch.nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(RecipeError, match="Odd cannot be taken over all ranks"):
        convert_sync_batchnorm(torch.nn.Sequential(Odd(3)))


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ("vit_smal_patch16_224", "timm/vit_small_patch16_224"),
        ("resnet18.a1_in1k", "set train.backbone to timm/resnet18"),
        ("efficientformer_l1", "does not take pictures of 32 x 32 pixels"),
        ("inception_v3", "does not take pictures of 32 x 32 pixels"),
    ],
)
def test_what_cannot_be_had_is_told_when_it_is_planned(backbone, said, planned):
    with pytest.raises(RecipeError) as caught:
        planned(of(backbone))
    assert said in str(caught.value)


@pytest.fixture
def planned(home):
    """The pretraining of a small recipe with this `train`, as `plan` would name it."""

    def plan(train):
        recipe = RECIPE.model_copy(update={"train": train})
        return training_stages.pretrain(recipe, SimCLRConfig(), 0, training_data(home.artifacts))

    return plan


@pytest.mark.slow
def test_keeping_fewer_activations_changes_no_gradient_or_is_refused(pictures):
    for name in ("test_resnet", "test_vit"):
        found = []
        for twice in (False, True):
            torch.manual_seed(0)
            backbone, _ = build_backbone(of(name, activation_checkpointing=twice))
            backbone(pictures).square().mean().backward()
            grads = {key: each.grad for key, each in backbone.named_parameters()}
            found.append((backbone.state_dict(), grads))
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
    with pytest.raises(RecipeError, match="is not for timm/test_efficientnet: it has batch norms"):
        check_backbone(of("test_efficientnet", activation_checkpointing=True))


@pytest.mark.slow
def test_a_trained_checkpoint_is_opened_again(home, planned, pictures):
    small = {"epochs": 1, "batch_size": 64, "projector_hidden": 16, "projector_out": 8, "log_every": 1}
    checkpoint = commit(home.store, planned(of("test_efficientnet", **small)), pretrain.run)
    network = open_network(checkpoint)
    assert network.preparation.size == SIDE
    fresh, features = build_backbone(of("test_efficientnet"))
    fresh.load_state_dict(torch.load(checkpoint.path / "checkpoint.pt", weights_only=True)["backbone"])
    out = network.backbone(pictures.to(network.device)).cpu()
    assert out.shape == (4, features) == (4, network.width)
    torch.testing.assert_close(out, fresh.eval()(pictures), rtol=1e-4, atol=1e-4)
