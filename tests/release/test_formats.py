"""An export is loaded by the other library alone, as its card says, and gives the features of the run's network."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import xclr
from tests.kit.home import one_thread
from tests.kit.pictures import photo
from tests.kit.stages import commit
from xclr.errors import RecipeError, StoreError
from xclr.evaluation.networks.pictures import normalised, prepare
from xclr.opened import Opened
from xclr.pipeline import pipeline
from xclr.recipe import SimCLRConfig, TrainConfig, load_recipe
from xclr.record import Record, read_records
from xclr.release import FILES, FORMATS, About, Released, check_format, write_export
from xclr.release.known import known
from xclr.stage import Origin
from xclr.store import Store
from xclr.training import build_backbone, pretrain
from xclr.training.model import BACKBONES
from xclr.training.views import preparation_of

ELSEWHERE = """
import os, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"xclr", "flows", "tasks", "infra"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
import numpy
for folder in sys.argv[1:]:
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.modules.pop("preprocessing", None)
    scope = {}
    with open("load.py") as code:
        exec(code.read(), scope)
    numpy.save("features.npy", numpy.asarray(scope["features"]))
    sys.path.remove(folder)
"""
SIZE = 32
TRAIN = {
    name: TrainConfig(backbone=name, image_size=SIZE, views="simclr", width=4, normalisation="imagenet")
    for name in ("resnet-mini", "resnet18", "vit-small", "timm/vit_tiny_patch16_224")
}
DEAR = {(name, "onnx") for name in TRAIN if name != "resnet-mini"}  # traced like resnet-mini, but for longer
OWN = {("resnet-mini", "safetensors")}  # which no other library knows
PAIRS = [
    (name, form)
    for name in TRAIN
    for form in FORMATS
    if FORMATS[form].holds(known(TRAIN[name])) and (name, form) not in DEAR | OWN
]
ABOUT = About(
    Origin("simclr", "emoji", "augmentation", 0, "adamw 0.003", "pixels"), SimCLRConfig(), {"step": 8}, "0" * 32
)


def moved(network: nn.Module) -> nn.Module:
    """With statistics and scales of norms that no fresh network has."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, each in network.state_dict().items():
            if each.is_floating_point() and each.ndim == 1:
                low = 0.5 if name.endswith(("running_var", "weight")) else -0.1
                each.copy_(low + 0.2 * torch.rand(each.shape, generator=generator))
    return network.eval()


@pytest.fixture(scope="module")
def released():
    """A backbone of each kind, by name."""
    torch.manual_seed(0)
    made = {}
    for name, train in TRAIN.items():
        backbone, width = build_backbone(train)
        made[name] = Released(moved(backbone), width, train, preparation_of(train), 0.5, ABOUT)
    return made


@pytest.fixture(scope="module")
def run(own_home, tmp_path_factory):
    """The run of own pictures, of which X-CLR alone has been trained, on a backbone of torchvision."""
    folder = tmp_path_factory.mktemp("run")
    home = shutil.copytree(own_home, folder / "home")
    (record,) = read_records(home, Record)
    train = TrainConfig(backbone="resnet18", image_size=16, batch_size=38, epochs=1, log_every=1)
    recipe = record.recipe.model_copy(update={"train": train, "seeds": (0,)})
    (stage,) = (each for each in pipeline(recipe, Store(home)) if each.name == "pretrain xclr seed 0")
    with one_thread():
        commit(Store(home), stage, pretrain.run)
    digests = (*(str(each.digest) for each in stage.inputs.values()), str(stage.digest))
    about = {"recipe": recipe, "digests": digests, "scores": None}
    return Opened(home, record.model_copy(update=about))


@pytest.fixture(scope="module")
def elsewhere(released, run, tmp_path_factory):
    """Folders of exports, and the features of picture.jpg that a process without xclr got in each, as its card says."""
    root = tmp_path_factory.mktemp("exports")
    folders = {pair: root / "-".join(pair).replace("/", "-") for pair in PAIRS}
    for (name, form), folder in folders.items():
        folder.mkdir()
        files = write_export(released[name], form, folder)
        assert {each.name for each in folder.iterdir()} == set(files) <= FILES
    for form in ("safetensors", "torchvision"):
        folders["run", form] = run.export(run.network("xclr"), form, root / form)
    for folder in folders.values():
        (folder / "picture.jpg").write_bytes(photo(90, 60))
        (folder / "load.py").write_text(block(folder / "README.md", "python"))
    places = [str(folder) for folder in folders.values()]
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, *places], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return {pair: (folder, np.load(folder / "features.npy")) for pair, folder in folders.items()}


def block(page, language):
    """The one block of a language in a Markdown page."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form"), PAIRS)
def test_what_a_card_says_loads_the_weights_without_this_project(released, elsewhere, name, form):
    (folder, found), own = elsewhere[name, form], released[name]
    pixels = prepare((folder / "picture.jpg").read_bytes(), own.preparation)
    with torch.inference_mode():
        expected = own.backbone(normalised(pixels[None], own.preparation)).numpy()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["safetensors", "torchvision"])
def test_a_run_is_exported_with_the_features_that_it_has(run, elsewhere, form):
    folder, found = elsewhere["run", form]
    backbone, prepare_own = run.backbone("xclr"), run.preprocess("xclr")
    with torch.inference_mode():
        expected = backbone(prepare_own(folder / "picture.jpg")[None]).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_card_tells_what_it_was_made_from_and_how_to_have_it_again(own_home, tmp_path):
    opened = xclr.open(own_home)
    card = opened.export(opened.network("xclr", 1), out=tmp_path / "out") / "README.md"
    for said in ("80 captioned pictures", "temperature 0.1", "resnet-mini", "seed 1", "8 steps of 16 pictures"):
        assert said in card.read_text()
    assert re.search(r"\| linear \| pictures \| top1 \| \d\.\d{4} ± \d\.\d{4} \(bootstrap\)", card.read_text())
    (tmp_path / "own.yaml").write_text(block(card, "yaml"))
    again = load_recipe(str(tmp_path / "own.yaml"))
    assert again.data.path == tmp_path / "own.parquet"
    assert again.model_copy(update={"data": opened.record.recipe.data}) == opened.record.recipe


def test_timm_reads_of_the_folder_what_the_network_is_shown(released, tmp_path):
    import timm

    write_export(released["resnet18"], "timm", tmp_path)
    network = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    shown = timm.data.resolve_model_data_config(network)
    assert (shown["input_size"], shown["interpolation"], shown["crop_mode"]) == ([3, SIZE, SIZE], "bilinear", "center")
    assert (shown["mean"], shown["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert int(SIZE / shown["crop_pct"]) == preparation_of(TRAIN["resnet18"]).resize
    assert json.loads((tmp_path / "config.json").read_text())["num_features"] == network.num_features
    assert timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=7).get_classifier().out_features == 7
    overlay = {"file": str(tmp_path / "model.safetensors"), "num_classes": 0}
    again = timm.create_model("resnet18", pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    assert torch.equal(again.state_dict()["conv1.weight"], network.state_dict()["conv1.weight"])


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_is_held_by_safetensors_and_onnx_and_by_those_who_know_it(name):
    train = TrainConfig(backbone=name, image_size=32)
    for form in FORMATS:
        if name != "resnet-mini" or form in {"safetensors", "onnx"}:
            check_format(form, train)
            continue
        with pytest.raises(RecipeError, match=f"format {form} cannot hold resnet-mini") as caught:
            check_format(form, train)
        assert caught.value.remedy == "--format safetensors, onnx"


@pytest.mark.parametrize("name", sorted(set(BACKBONES) - {"resnet-mini"}))
def test_weights_bear_the_names_of_those_who_know_them(name):
    import timm
    import torchvision

    train = TrainConfig(backbone=name, image_size=SIZE)
    theirs, timms = known(train)
    with torch.device("meta"):  # names and shapes alone
        backbone, width = build_backbone(train)
        network = eval(f"models.{theirs.call}", {"models": torchvision.models})
        setattr(network, theirs.head, nn.Identity())
        of_timm = timm.create_model(timms.architecture, num_classes=0, **timms.options)
    assert shapes(backbone.state_dict()) == shapes(network.state_dict())
    assert shapes(timms.renamed(backbone.state_dict())) == shapes(of_timm.state_dict())
    assert of_timm.num_features == width
    assert {*of_timm.default_cfg["classifier"].split()} == {timms.classifier}
    assert of_timm.default_cfg["first_conv"] == timms.first_conv


def shapes(state):
    return {name: each.shape for name, each in state.items()}


def test_a_network_from_elsewhere_is_not_ours_to_hand_out(own_home, tmp_path):
    opened = xclr.open(own_home)
    network = opened.network("xclr")
    other = replace(network, method="timm resnet18", checkpoint=replace(network.checkpoint, kind="reference"))
    with pytest.raises(StoreError, match="timm resnet18 is a network from elsewhere") as caught:
        opened.export(other, out=tmp_path / "out")
    assert caught.value.remedy and not (tmp_path / "out").exists()


def test_an_unknown_format_and_missing_packages_are_told_with_the_remedy(monkeypatch):
    with pytest.raises(RecipeError, match="no format 'tim'") as caught:
        check_format("tim", TRAIN["resnet18"])
    assert caught.value.remedy.startswith("--format timm;")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RecipeError, match="format onnx needs onnx") as caught:
        check_format("onnx", TRAIN["resnet18"])
    assert caught.value.remedy == "pip install onnx"
