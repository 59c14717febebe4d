"""Weights to start from: read from files and libraries, fitted before any training, named by what they are."""

import shutil

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from tests.kit.home import RECIPE, training_data
from tests.kit.stages import commit
from xclr.errors import RecipeError
from xclr.pipeline import pipeline
from xclr.recipe import RandomConfig, SimCLRConfig, TrainConfig, XCLRConfig
from xclr.store import Store
from xclr.training import CHECKPOINT, build_backbone, initial, pretrain
from xclr.training import stages as training_stages
from xclr.training.stages import INITIAL
from xclr.training.weights import weights_for

MINI = {"width": 8, "image_size": 16, "projector_hidden": 8, "projector_out": 4, "batch_size": 128, "epochs": 1}


def with_train(**train):
    return RECIPE.model_copy(update={"train": TrainConfig(**MINI | train)})


@pytest.fixture(scope="module")
def states():
    """State dicts as libraries save them, by the backbone of ours that they are for."""
    torch.manual_seed(5)
    return {
        "timm/test_resnet": timm.create_model("test_resnet", pretrained=False).state_dict(),
        "resnet18": torchvision.models.resnet18(weights=None).state_dict(),
        "resnet-mini": build_backbone(with_train().train)[0].state_dict(),
    }


def saved(state, path):
    state = {name: each.contiguous() for name, each in state.items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def backbone_of(folder):
    return torch.load(folder / CHECKPOINT, weights_only=True)["backbone"]


def started(home, path, backbone, objective=None, **train):
    """The checkpoint of a pretraining that starts from a file, made as a run makes it."""
    recipe = with_train(backbone=backbone, init=str(path), **train)
    stages = training_stages.initials(recipe.model_copy(update={"objectives": (SimCLRConfig(),)}), home.store)
    for stage in stages:
        commit(home.store, stage, initial.run)
    stage = training_stages.pretrain(recipe, objective or RandomConfig(), 0, training_data(home.artifacts))
    return backbone_of(commit(home.store, stage, pretrain.run).path)


@pytest.mark.parametrize(
    ("backbone", "name"),
    [("timm/test_resnet", "mine.pt"), ("resnet18", "mine.safetensors"), ("resnet-mini", "mine.pth")],
)
def test_the_untrained_network_is_that_of_the_file(backbone, name, states, home, tmp_path):
    state = states[backbone]
    own = started(home, saved(state, tmp_path / name), backbone, image_size=32)
    assert own and all(torch.equal(each, state[key]) for key, each in own.items())
    assert len(own) >= len(state) - 2  # its classifier


@pytest.mark.slow
def test_a_training_begins_with_them_and_goes_on_from_another_runs_checkpoint(states, home, tmp_path):
    still = {"optimizer": "sgd", "learning_rate": 1e-9, "weight_decay": 0}
    path = saved(states["resnet-mini"], tmp_path / "mine.pt")
    own = started(home, path, "resnet-mini", SimCLRConfig(), **still)
    weights = [key for key in own if "running" not in key and "num_batches" not in key]
    assert all(torch.allclose(own[key], states["resnet-mini"][key], atol=1e-5) for key in weights)
    assert not torch.equal(own["1.running_mean"], states["resnet-mini"]["1.running_mean"])
    (tmp_path / "trained").mkdir()
    torch.save({"backbone": own}, tmp_path / "trained" / CHECKPOINT)
    again = started(home, tmp_path / "trained", "resnet-mini")
    assert all(torch.equal(each, own[key]) for key, each in again.items())


def test_weights_that_do_not_fit_are_told_when_they_are_planned(states, home, tmp_path):
    path = saved(states["resnet18"], tmp_path / "mine.pt")
    with pytest.raises(RecipeError) as caught:
        pipeline(with_train(backbone="resnet34", init=str(path)), home.store)
    assert "do not fit resnet34: 80 missing (first layer1.2.conv1.weight)" in caught.value.message
    with pytest.raises(RecipeError, match=r"of another shape \(first 0\.weight\)"):
        pipeline(with_train(width=16, init=str(saved(states["resnet-mini"], tmp_path / "8.pt"))), home.store)
    with pytest.raises(RecipeError, match="there is no file"):
        pipeline(with_train(init=str(tmp_path / "none.pt")), home.store)


def pretrainings(store, recipe):
    """Digests of the pretrainings of a recipe by their names."""
    return {stage.name: str(stage.digest) for stage in pipeline(recipe, store).of(training_stages.PRETRAIN)}


def test_a_file_names_its_trainings_by_its_content_and_not_by_its_place(states, home, tmp_path):
    first = saved(states["resnet-mini"], tmp_path / "a.pt")
    copy = shutil.copy(first, tmp_path / "b.pt")
    other = {key: each + 1 for key, each in states["resnet-mini"].items()}
    named = [
        pretrainings(home.store, with_train(init=path and str(path)))
        for path in (None, first, copy, saved(other, tmp_path / "c.pt"))
    ]
    assert named[1] == named[2]
    assert all(len({each[name] for each in named}) == 3 for name in named[0])


def test_one_objective_may_start_elsewhere_than_the_others(states, home, tmp_path):
    path = saved(states["resnet-mini"], tmp_path / "a.pt")
    both = ((SimCLRConfig(), XCLRConfig()), (SimCLRConfig(), XCLRConfig(train={"init": str(path)})))
    plain, mixed = (with_train().model_copy(update={"objectives": each}) for each in both)
    before, after = (pretrainings(home.store, each) for each in (plain, mixed))
    assert [name for name in before if before[name] != after[name]] == ["pretrain xclr seed 0"]
    plan = pipeline(mixed, home.store)
    stage = plan.of(training_stages.PRETRAIN)[-1]
    assert len(plan.of(INITIAL)) == 1 and str(path) not in str(stage.identity)
    assert stage.kind.network(stage.config).trained.startswith("train.init=sha256:")


@pytest.mark.parametrize(
    ("init", "near"),
    [
        ("timm:resnet18.a1_in1", "a1_in1k"),
        ("timm:resnet17", "resnet18"),
        ("torchvision:ResNet18_Weights.IMAGENET1K_V7", "ResNet18_Weights.IMAGENET1K_V1"),
        ("torchvision:resnet17", "resnet18"),
    ],
)
def test_a_name_that_is_not_published_is_told_the_nearest(init, near, home):
    with pytest.raises(RecipeError) as caught:
        pipeline(with_train(backbone="resnet18", init=init), home.store)
    assert near in caught.value.remedy


def test_published_weights_are_named_in_full_and_taken_from_the_cache(states, home, tmp_path, monkeypatch):
    named = [
        pipeline(with_train(backbone="resnet18", init=init), home.store).of(INITIAL)[0]
        for init in ("torchvision:resnet18", "torchvision:ResNet18_Weights.IMAGENET1K_V1")
    ]
    assert named[0].digest == named[1].digest
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    saved(states["resnet18"], cache / torchvision.models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    store = Store(tmp_path / "home")
    own = backbone_of(commit(store, named[0], initial.run).path)
    assert all(torch.equal(each, states["resnet18"][key]) for key, each in own.items()) and "fc.weight" not in own


def test_half_precision_and_uncounted_batches_are_filled_in(states):
    state = {key: each.half() for key, each in states["resnet-mini"].items() if "num_batches" not in key}
    found = weights_for(with_train().train.network, state, "half")
    assert list(found) == list(states["resnet-mini"])
    assert all(found[key].dtype == each.dtype for key, each in states["resnet-mini"].items())
