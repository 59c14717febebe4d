"""Networks from elsewhere: what they give is what their own libraries give, and nothing in a file is run."""

import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from tests.kit.home import one_thread
from tests.kit.pictures import photo
from xclr.errors import RecipeError
from xclr.evaluation.networks.elsewhere import load_reference, rebuild
from xclr.evaluation.networks.pictures import Shown, batches, normalised, prepare
from xclr.recipe import Reference
from xclr.training.weights import read_state

CLASSES = ("ant", "bee", "cow")
TINY_CLIP = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fifteen pictures of several shapes in three class folders."""
    root = tmp_path_factory.mktemp("pictures")
    for index in range(15):
        place = root / CLASSES[index % 3] / f"{index}.jpg"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(photo(240 + 13 * index, 400 - 11 * index, seed=index))
    return root


@pytest.fixture(scope="module")
def network(folder):
    """A ResNet-18 with seeded weights and the statistics of noise, whose classifier takes the nearest class mean."""
    torch.manual_seed(7)
    net = torchvision.models.resnet18(weights=None, num_classes=3)
    head, net.fc = net.fc, nn.Identity()
    with torch.no_grad():
        for _ in range(8):
            net(torch.randn(8, 3, 64, 64))
        features, labels = plain_script(net.eval(), folder)
        means = torch.stack([features[labels == each].mean(dim=0) for each in range(3)])
        head.weight.copy_(means - features.mean(dim=0))
        head.bias.copy_(-(head.weight * (means + features.mean(dim=0))).sum(dim=1) / 2)
    net.fc = head
    return net


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(network.state_dict(), path)
    return path


def resnet18(weights, **more):
    return Reference(library="torchvision", model="resnet18", weights=str(weights), **more)


def ours(reference, folder, **how):
    """All outputs of a reference, as the evaluation sees the folder's pictures."""
    net, width, shown = load_reference(reference, **how)
    names = sorted(folder.glob("*/*.jpg"))
    seen = batches(
        Shown(len(names), lambda i: names[i].read_bytes(), lambda i: names[i].name), shown, size=4, threads=2
    )
    with torch.inference_mode():
        found = torch.cat([net(normalised(batch, shown)) for batch in seen])
    assert found.shape == (len(names), width)
    return found.half()


def plain_script(net, folder, resize=256, crop=224):
    """What everybody writes: torchvision's transforms, folder and loader; outputs and labels."""
    norm = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    steps = [transforms.Resize(resize), transforms.CenterCrop(crop), transforms.ToTensor(), norm]
    loader = DataLoader(ImageFolder(folder, transforms.Compose(steps)), batch_size=5)
    with torch.no_grad():
        found = [(net(pictures), labels) for pictures, labels in loader]
    return tuple(map(torch.cat, zip(*found, strict=True)))


@pytest.mark.slow
def test_features_are_those_of_a_plain_script(network, saved, folder):
    headless = torchvision.models.resnet18(weights=None)
    headless.fc = nn.Identity()
    headless.load_state_dict(network.state_dict(), strict=False)
    expected, _ = plain_script(headless.eval(), folder)
    found = ours(resnet18(saved), folder)
    torch.testing.assert_close(found, expected.half(), rtol=1e-3, atol=1e-4)
    assert expected.std(dim=0).mean() > 0.05


@pytest.mark.slow
def test_the_own_head_answers_as_in_a_plain_script(network, saved, folder):
    expected, labels = plain_script(network, folder)
    found, guesses = ours(resnet18(saved), folder, own_head=True), expected.argmax(1)
    torch.testing.assert_close(found, expected.half(), rtol=1e-3, atol=1e-3)
    assert torch.equal(found.argmax(1), guesses)
    assert len(guesses.unique()) == 3 and (guesses == labels).float().mean() > 0.4


def with_names(state, prefix):
    return {prefix + name: each for name, each in state.items()}


FORMS = {
    "state_dict": lambda state: {"state_dict": state, "epoch": 90},
    "model of ranks": lambda state: {"model": with_names(state, "module."), "best": torch.ones(1)},
    "backbone beside a projector": lambda state: with_names(state, "backbone.") | {"projector.weight": torch.ones(3)},
    "all of it": lambda state: {"state_dict": with_names(state, "module.backbone.")},
    "without counts": lambda state: {name: each for name, each in state.items() if "num_batches" not in name},
    "without its head": lambda state: {name: each for name, each in state.items() if "fc." not in name},
}


@pytest.mark.parametrize("form", FORMS)
def test_state_dicts_come_in_many_forms(form, network, tmp_path):
    torch.save(FORMS[form](network.state_dict()), tmp_path / "mine.pt")
    same(load_reference(resnet18(tmp_path / "mine.pt"))[0], network)


def test_safetensors_are_read_too(network, tmp_path):
    save_file(with_names(network.state_dict(), "module."), tmp_path / "mine.safetensors")
    same(load_reference(resnet18(tmp_path / "mine.safetensors"))[0], network)


def same(net, network):
    own = net.state_dict()
    assert own.keys() == {name for name in network.state_dict() if not name.startswith("fc.")}
    for name, each in network.named_parameters():
        assert name.startswith("fc.") or torch.equal(own[name], each)


def test_a_head_for_other_classes_is_kept(network, tmp_path):
    state = dict(network.state_dict())
    state["fc.weight"], state["fc.bias"] = state["fc.weight"][:2], state["fc.bias"][:2]
    torch.save({"model": with_names(state, "module.")}, tmp_path / "two.pt")
    net, width, _ = load_reference(resnet18(tmp_path / "two.pt"), own_head=True)
    assert width == 2 and torch.equal(net.fc.weight, state["fc.weight"])


FAULTS = {
    "another network's": lambda state: torchvision.models.resnet34(weights=None).state_dict(),
    "a part": lambda state: {name: each for name, each in state.items() if not name.startswith("layer3.")},
    "another width's": lambda state: state | {"conv1.weight": torch.ones(32, 3, 7, 7)},
}
WORDS = {
    "another network's": r"left over \(first layer1\.2",
    "a part": r"missing \(first layer3",
    "another width's": "1 of another shape",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_do_not_fit_are_refused(fault, network, tmp_path):
    torch.save(FAULTS[fault](dict(network.state_dict())), tmp_path / "wrong.pt")
    with pytest.raises(RecipeError, match=WORDS[fault]) as caught:
        load_reference(resnet18(tmp_path / "wrong.pt"))
    assert "do not fit torchvision resnet18" in caught.value.message


class Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_nothing_in_a_file_is_run(network, tmp_path):
    torch.save(dict(network.state_dict()) | {"more": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    with pytest.raises(RecipeError, match="not a state dict of tensors alone"):
        load_reference(resnet18(tmp_path / "trap.pt"))
    assert not (tmp_path / "sprung").exists()


ITSELF = {"a": 1}
ITSELF["state_dict"] = ITSELF


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pt", b"GIF89a"),
        ("b.safetensors", b"\x08\0\0\0\0\0\0\0not json"),
        ("c.pth", b""),
        ("d.pt", None),
        ("e.pt", [1, 2]),
        ("f.pt", {1: torch.ones(2)}),
        ("g.pt", {"a": torch.ones(2).to_sparse()}),
        ("h.pt", {"a": torch.ones(2, device="meta")}),
        ("i.pt", {"a": torch.tensor([1.0, float("nan")])}),
        ("j.pt", ITSELF),
    ],
)
def test_files_without_tensors_are_refused_by_name(name, content, tmp_path):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(RecipeError, match=name) as caught:
        read_state(path)
    assert caught.value.remedy


UNKNOWN = {
    ("torchvision", "resnet-50", "random"): "resnet50",
    ("torchvision", "resnet50", "IMAGENET1K_V9"): "IMAGENET1K_V2",
    ("timm", "resnet50d_", "random"): "resnet50d",
    ("timm", "test_vit", "r160_in2k"): "r160_in1k",
    ("timm", "test_vit.in22k", "default"): "r160_in1k",
    ("open_clip", "ViT-B32", "random"): "ViT-B-32",
    ("open_clip", "ViT-B-32", "laion2b_s34b"): "laion2b_s34b_b79k",
}


@pytest.mark.parametrize("given", UNKNOWN, ids=" ".join)
def test_unknown_names_are_answered_with_the_nearest(given):
    library, model, weights = given
    with pytest.raises(RecipeError, match=f"{library} has no") as caught:
        load_reference(Reference(library=library, model=model, weights=weights))
    assert UNKNOWN[given] in caught.value.remedy.replace(",", " ").split()


@pytest.fixture
def _no_network(monkeypatch, tmp_path):
    """Downloads end at a port of this machine where nobody listens."""
    from huggingface_hub import constants

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize(
    ("library", "model", "weights", "source"),
    [
        ("torchvision", "resnet18", "IMAGENET1K_V1", "https://download.pytorch.org/models/resnet18-f37072fd.pth"),
        ("timm", "test_vit", "r160_in1k", "https://huggingface.co/timm/test_vit.r160_in1k"),
        ("open_clip", "RN50", "cc12m", "https://huggingface.co/timm/resnet50_clip.cc12m"),
    ],
)
def test_weights_that_cannot_be_fetched_say_where_they_are(library, model, weights, source):
    with pytest.raises(RecipeError, match="cannot be fetched") as caught:
        load_reference(Reference(library=library, model=model, weights=weights))
    assert source in caught.value.remedy and "set the reference's weights to its path" in caught.value.remedy


def test_random_weights_are_those_of_the_seed_and_leave_other_numbers_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (load_reference(resnet18("random", seed=seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("model", "width"),
    [
        ("resnet18", 512),
        ("mobilenet_v3_small", 1024),
        ("squeezenet1_1", 512),
        ("densenet121", 1024),
        ("convnext_tiny", 768),
        ("vit_b_32", 768),
        ("swin_t", 768),
        ("regnet_y_400mf", 440),
    ],
)
@pytest.mark.slow
def test_every_kind_of_classifier_is_taken_off(model, width):
    reference = Reference(library="torchvision", model=model, weights="random")
    net, found, shown = load_reference(reference)
    assert found == width and shown.size == 224
    assert not net.training and not any(each.requires_grad for each in net.parameters())
    logits, classes, _ = load_reference(reference, own_head=True)
    assert classes == 1000
    head = [each for each in logits.modules() if isinstance(each, nn.Linear | nn.Conv2d)][-1]
    x = normalised(prepare(photo(260, 300), shown)[None], shown)
    if isinstance(head, nn.Linear):
        torch.testing.assert_close(head(net(x)), logits(x))


@pytest.mark.parametrize(("weights", "edge"), [("IMAGENET1K_V1", 256), ("IMAGENET1K_V2", 232)])
@pytest.mark.slow
def test_a_copy_of_published_weights_is_shown_what_they_are(weights, edge, tmp_path):
    entry = torchvision.models.get_model_weights("mobilenet_v2")[weights]
    for name, expected in ((Path(entry.url).name, edge), ("mine.pth", 256)):
        torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), tmp_path / name)
        reference = Reference(library="torchvision", model="mobilenet_v2", weights=str(tmp_path / name))
        shown = load_reference(reference)[2]
        assert (shown.resize, shown.size) == (expected, 224)


@pytest.mark.parametrize("model", ["test_vit", "test_resnet.r160_in1k", "test_convnext", "vit_tiny_patch16_224"])
def test_timm_models_are_shown_and_answer_what_timm_says(model, tmp_path):
    torch.manual_seed(3)
    theirs = timm.create_model(model, num_classes=10).eval()
    torch.save({"state_dict": with_names(theirs.state_dict(), "module.")}, tmp_path / "mine.pt")
    reference = Reference(library="timm", model=model, weights=str(tmp_path / "mine.pt"))
    data = photo(333, 250)
    shown = timm.data.create_transform(**timm.data.resolve_data_config({}, model=theirs))
    x = shown(Image.open(io.BytesIO(data)))[None]
    for own_head in (False, True):
        net, width, how = load_reference(reference, own_head=own_head)
        assert torch.equal(normalised(prepare(data, how)[None], how), x)
        expected = theirs(x) if own_head else theirs.forward_head(theirs.forward_features(x), pre_logits=True)
        assert width == expected.shape[1] and torch.equal(net(x), expected)


def test_timm_models_that_see_all_of_a_picture_are_shown_all_of_it():
    name = "tf_efficientnetv2_b3.in21k_ft_in1k"
    shown = load_reference(Reference(library="timm", model=name, weights="random"))[2]
    about = timm.data.resolve_data_config({}, timm.get_pretrained_cfg(name).to_dict())
    data = photo(300, 180)
    x = timm.data.create_transform(**about)(Image.open(io.BytesIO(data)))
    assert torch.equal(normalised(prepare(data, shown)[None], shown)[0], x)
    assert not shown.crop and shown.resize > shown.size


@pytest.mark.parametrize("model", ["deepseek_vit_412m", "vit_5b_patch16_sapiens2"])
def test_timm_models_that_are_shown_other_shapes_are_refused_before_they_are_built(model):
    with pytest.raises(RecipeError, match=f"timm {model} is shown"):
        load_reference(Reference(library="timm", model=model, weights="random"))


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "tiny-clip.json"
    path.write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(path)
    return "tiny-clip"


def test_clip_models_answer_as_encode_image_does(tiny_clip, tmp_path):
    torch.manual_seed(9)
    theirs, _, shown = open_clip.create_model_and_transforms(tiny_clip)
    torch.save({"state_dict": with_names(theirs.state_dict(), "module.")}, tmp_path / "mine.pt")
    net, width, how = load_reference(Reference(library="open_clip", model=tiny_clip, weights=str(tmp_path / "mine.pt")))
    data = photo(77, 50)
    x = shown(Image.open(io.BytesIO(data)))[None]
    assert torch.equal(normalised(prepare(data, how)[None], how), x)
    assert width == 12
    torch.testing.assert_close(net(x), theirs.eval().encode_image(x))
    with pytest.raises(RecipeError, match="has no classifier"):
        load_reference(Reference(library="open_clip", model=tiny_clip, weights="random"), own_head=True)


@pytest.mark.parametrize("model", ["ViT-B-16-SigLIP", "MobileCLIP-S1"])
@pytest.mark.slow
def test_clip_models_are_shown_what_their_published_weights_are(model):
    about = open_clip.get_pretrained_cfg(model, open_clip.list_pretrained_tags_by_model(model)[0])
    shown = load_reference(Reference(library="open_clip", model=model, weights="random"))[2]
    assert (shown.mean, shown.std, shown.interpolation) == (about["mean"], about["std"], about["interpolation"])
    assert shown.crop == (about["resize_mode"] == "shortest")


@pytest.mark.parametrize(
    ("library", "model"), [("torchvision", "resnet18"), ("timm", "test_vit"), ("open_clip", "tiny-clip")]
)
def test_a_network_is_made_again_from_its_tensors(library, model, tiny_clip, tmp_path):
    net, width, shown = load_reference(Reference(library=library, model=model, weights="random", seed=4))
    torch.save(net.state_dict(), tmp_path / "kept.pt")
    about = json.loads(json.dumps(asdict(shown)))
    state = torch.load(tmp_path / "kept.pt", weights_only=True)
    again, same_width, same_shown = rebuild(Reference(library=library, model=model, weights="random"), state, about)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, shown.size, shown.size)).astype(np.float32))
    assert (width, shown) == (same_width, same_shown) and torch.equal(net(x), again(x))


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize(
    ("library", "model", "weights"), [("torchvision", "resnet18", "IMAGENET1K_V1"), ("timm", "test_vit", "default")]
)
def test_published_weights_that_are_kept_need_no_network(library, model, weights):
    state = load_reference(Reference(library=library, model=model, weights="random"))[0].state_dict()
    shown = {"size": 64, "resize": 72, "mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bicubic"}
    if model == "test_vit":
        shown |= {"size": 160, "resize": 168}
    net, _, how = rebuild(Reference(library=library, model=model, weights=weights), state, shown)
    assert how.mean == (0.5, 0.5, 0.5)
    assert all(torch.equal(each, state[name]) for name, each in net.state_dict().items())
