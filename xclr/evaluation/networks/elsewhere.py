"""Networks from elsewhere as frozen backbones: those of torchvision, timm and open_clip, and what they are shown."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xclr.errors import RecipeError
from xclr.evaluation.networks.pictures import METHODS
from xclr.images.preparation import Preparation
from xclr.recipe import WEIGHTS, Reference
from xclr.training.published import fetching
from xclr.training.weights import State, fitted, read_state

RANDOM, DEFAULT = "random", "default"  # where weights could have a published name
HEADS = ("fc", "classifier", "heads", "head")  # what torchvision calls classifiers
SHOWN = ("mean", "std", "interpolation", "resize_mode")  # of what open_clip says of published weights
PACKAGES = {"open_clip": "open_clip_torch"}  # that are not called as what they hold


class Wanted(NamedTuple):
    """A network that is asked for: with the classifier or without, and the tensors of the file of its weights.

    `fetch` is False where its weights come later.
    """

    reference: Reference
    own_head: bool = False
    state: State | None = None
    fetch: bool = True

    @property
    def published(self) -> bool:
        """True for weights that the library knows by name."""
        return file_of(self.reference) is None and self.reference.weights != RANDOM


class Built(NamedTuple):
    """A network, what it is to be shown, the module that its classifier is in, and what is still to be loaded."""

    network: nn.Module
    preparation: Preparation
    head: str = ""
    state: State | None = None


class PictureTower(nn.Module):
    """The network of the pictures out of a model of pictures and texts."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pictures: Tensor) -> Tensor:
        """[b, 3, s, s] to [b, d], what encode_image would normalise; some towers return their tokens, too."""
        out = self.visual(pictures)
        pooled: Tensor = out[0] if isinstance(out, tuple) else out
        return pooled


def load_reference(reference: Reference, *, own_head: bool = False) -> tuple[nn.Module, int, Preparation]:
    """A network in evaluation mode, its number of features, and what it is to be shown.

    It maps [b, 3, s, s] to what its classifier would take, [b, d]; with `own_head` to that classifier's logits.
    Weights are those that the library publishes under a name, those of a file (a state dict of tensors alone, perhaps
    under "state_dict", "model" or "backbone", its names perhaps with "module." or "backbone." before them) or random.
    Raises RecipeError with the nearest names for an unknown model or weights, and for weights that cannot be fetched,
    read or fitted to the model.
    """
    path = file_of(reference)
    built = _built(Wanted(reference, own_head, read_state(path) if path else None))
    if built.state is not None:
        _fill(built, built.state, reference)
    return _finished(reference, built.network, built.preparation)


def rebuild(reference: Reference, state: State, preparation: Mapping[str, Any]) -> tuple[nn.Module, int, Preparation]:
    """What load_reference gave, from its state dict and the fields of its preparation; fetches nothing."""
    network = _built(Wanted(reference, fetch=False)).network
    network.load_state_dict(state)
    triples = {name: _triple(preparation[name]) for name in ("mean", "std")}
    return _finished(reference, network, Preparation(**{**preparation, **triples}))


def file_of(reference: Reference) -> Path | None:
    """The file that holds the weights, where they are not published ones."""
    return Path(reference.weights) if reference.is_file else None


def _built(wanted: Wanted) -> Built:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(wanted.reference.seed)
        return LIBRARIES[wanted.reference.library](wanted)


def _finished(reference: Reference, network: nn.Module, shown: Preparation) -> tuple[nn.Module, int, Preparation]:
    network = network.eval().requires_grad_(False)
    with torch.inference_mode():
        out = network(torch.zeros(1, 3, shown.size, shown.size))
    if not isinstance(out, Tensor) or out.ndim != 2:
        raise RecipeError(f"{reference.label} does not give one vector a picture", "choose a model that classifies")
    return network, int(out.shape[1]), shown


def _torchvision(wanted: Wanted) -> Built:
    """A classifier of torchvision; a file that bears a published name is shown what the published weights are."""
    reference, models = wanted.reference, _library(wanted.reference).models
    _known("model", reference.model, models.list_models(module=models), reference)
    entries = models.get_model_weights(reference.model)
    entry = _entry(wanted, entries)
    like = entry or next(iter(entries))
    network = models.get_model(reference.model, weights=None, **_options(reference.model, like, entry is not None))
    place, state = _last_layer(network), wanted.state
    if wanted.published and wanted.fetch:
        with _fetching(reference, entry.url):
            state = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    if not wanted.own_head:
        network.set_submodule(place, nn.Identity())
    elif (classes := _classes(state, place)) and isinstance(layer := network.get_submodule(place), nn.Linear):
        network.set_submodule(place, nn.Linear(layer.in_features, classes))
    shown = like.transforms()
    preparation = _preparation(
        reference, (shown.crop_size[0], shown.resize_size[0]), shown.mean, shown.std, shown.interpolation.value
    )
    return Built(network, preparation, place.partition(".")[0], state)


def _entry(wanted: Wanted, entries: Any) -> Any:  # noqa: ANN401
    """The published weights by name; of a file those that it is a copy of by its name, or None."""
    name = wanted.reference.weights
    if not wanted.published:
        return next((each for each in entries if Path(each.url).name == Path(name).name), None)
    if name == DEFAULT:
        return entries.DEFAULT
    _known("weights", name, [each.name for each in entries], wanted.reference)
    return entries[name]


def _options(model: str, entry: Any, exactly: bool) -> dict[str, Any]:  # noqa: ANN401
    """What published weights, or weights like them, want of a network beside its name."""
    if model.startswith("vit_"):
        return {"image_size": entry.meta["min_size"][0]}
    inception = exactly and model in {"googlenet", "inception_v3"}
    return {"transform_input": True, "init_weights": False} if inception else {}


def _last_layer(network: nn.Module) -> str:
    """Name of the layer that gives the logits: the last with weights in the classifier."""
    head = next(each for each in HEADS if hasattr(network, each))
    weighted = (nn.Linear, nn.Conv2d)
    layers: list[str] = [name for name, each in network.named_modules() if isinstance(each, weighted)]
    return next(name for name in reversed(layers) if name.partition(".")[0] == head)


def _classes(state: State | None, layer: str) -> int | None:
    """How many classes the weights are for, by the layer that gives the logits; None where they do not say."""
    named = (each for name, each in (state or {}).items() if f".{name}".endswith(f".{layer}.weight"))
    return next((len(each) for each in named if each.ndim), None)


def _timm(wanted: Wanted) -> Built:
    """A classifier of timm; the tag of weights stands in `weights`, or after a dot in the model's name."""
    reference, timm = wanted.reference, _library(wanted.reference)
    name, _, tag = reference.model.partition(".")
    _known("model", name, timm.list_models(), reference)
    tag = reference.weights if wanted.published and reference.weights != DEFAULT else tag
    if tag:
        tags = [each.partition(".")[2] for each in timm.list_models(f"{name}.*", pretrained=True)]
        _known("weights", tag, tags, reference)
    full = f"{name}.{tag}" if tag else name
    about = timm.get_pretrained_cfg(full)
    preparation = _timm_preparation(timm.data.resolve_data_config({}, about.to_dict()), reference)
    classes = _classes(wanted.state, str(about.classifier)) if wanted.own_head else 0
    options = {} if classes is None else {"num_classes": classes}
    with _fetching(reference, f"https://huggingface.co/{about.hf_hub_id}"):
        network = timm.create_model(full, pretrained=wanted.published and wanted.fetch, **options)
    head = about.classifier if isinstance(about.classifier, str) else next(iter(about.classifier or ()), "")
    return Built(network, preparation, head.partition(".")[0], wanted.state)


def _timm_preparation(about: Mapping[str, Any], reference: Reference) -> Preparation:
    _, height, width = about["input_size"]
    if height != width or about["crop_mode"] not in {"center", "squash"}:
        raise RecipeError(
            f"{reference.label} is shown {width} x {height} pixels, cut out by {about['crop_mode']!r}",
            "choose a model that is shown a square: the centre of a picture, or all of it squashed",
        )
    sizes = height, math.floor(height / about["crop_pct"])
    crop = about["crop_mode"] == "center"
    return _preparation(reference, sizes, about["mean"], about["std"], about["interpolation"], crop=crop)


def _open_clip(wanted: Wanted) -> Built:
    """The network of the pictures of a model of open_clip, as encode_image applies it.

    Published weights bring their activations; of a file the model's name says whether it is "-quickgelu".
    """
    reference, open_clip = wanted.reference, _library(wanted.reference)
    if wanted.own_head:
        raise RecipeError(f"{reference.label} has no classifier", "take its features instead")
    _known("model", reference.model, open_clip.list_models(), reference)
    tags = open_clip.list_pretrained_tags_by_model(reference.model)
    if wanted.published:
        _known("weights", reference.weights, tags, reference)
    tag = reference.weights if wanted.published else next(iter(tags), "")
    about = open_clip.get_pretrained_cfg(reference.model, tag)
    with _fetching(reference, f"https://huggingface.co/{about.get('hf_hub', '')}"):
        model = open_clip.create_model(
            reference.model,
            pretrained=tag if wanted.published and wanted.fetch else None,
            force_quick_gelu=wanted.published and bool(about.get("quick_gelu")),
            force_preprocess_cfg={key: about[key] for key in SHOWN if key in about},
            pretrained_text=False,
        )
    shown = open_clip.get_model_preprocess_cfg(model)
    size = shown["size"] if isinstance(shown["size"], int) else shown["size"][0]
    crop = shown["resize_mode"] == "shortest"
    preparation = _preparation(reference, (size, size), shown["mean"], shown["std"], shown["interpolation"], crop=crop)
    return Built(PictureTower(model.visual), preparation, state=wanted.state)


LIBRARIES: Mapping[str, Callable[[Wanted], Built]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "open_clip": _open_clip,
}


def _preparation(
    reference: Reference,
    sizes: tuple[int, int],
    mean: Iterable[float],
    std: Iterable[float],
    interpolation: str,
    *,
    crop: bool = True,
) -> Preparation:
    """A library's words as ours; sizes: those of the crop and of the edge that it is cut from."""
    if interpolation not in METHODS:
        raise RecipeError(
            f"{reference.label} is shown pictures resized by {interpolation!r}",
            "choose a model that is shown them resized by " + " or ".join(METHODS),
        )
    return Preparation(*sizes, _triple(mean), _triple(std), interpolation, crop=crop)  # type: ignore[arg-type]


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = (float(each) for each in values)
    return red, green, blue


def _fill(built: Built, state: State, reference: Reference) -> None:
    """Load a state dict; what it has for modules that the network does not have is left out."""
    try:
        own = fitted(state, built.network, built.head)
    except ValueError as error:
        raise RecipeError(
            f"the weights {reference.weights} do not fit {reference.label}: {error}", "name the model that they are of"
        ) from error
    built.network.load_state_dict(own, strict=False)


def _library(reference: Reference) -> ModuleType:
    try:
        return importlib.import_module(reference.library)
    except ModuleNotFoundError as error:
        package = PACKAGES.get(reference.library, reference.library)
        raise RecipeError(f"{reference.library} is not installed", f"pip install {package}") from error


def _known(kind: str, given: str, names: Iterable[str], reference: Reference) -> None:
    """Raise RecipeError with the nearest names for one that there is not."""
    names = list(names)
    if given in names:
        return
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.4) or names[:3]
    files = f", a file ({', '.join(WEIGHTS)}) or {RANDOM}" if kind == "weights" else ""
    raise RecipeError(
        f"{reference.library} has no {kind} {given!r}" + (f" of {reference.model}" if kind == "weights" else ""),
        f"nearest: {', '.join(near) or 'none are published'}{files}",
    )


def _fetching(reference: Reference, source: str) -> AbstractContextManager[None]:
    return fetching(f"{reference.weights} of {reference.label}", source, "the reference's weights")
