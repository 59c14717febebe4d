"""Weights that timm and torchvision publish, by name."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from xclr.errors import RecipeError
from xclr.recipe import FROM_TIMM, FROM_TORCHVISION, TrainConfig
from xclr.training.weights import State, first_line

KEY = "train.init"  # whose weights these are
NEAREST = 3  # names in a message


def full_name(weights: str) -> str:
    """The one name of published weights, defaults spelled out; raises RecipeError with the nearest for others."""
    library, _, name = weights.partition(":")
    return f"{library}:{_timm_name(name) if f'{library}:' == FROM_TIMM else _entry(name)}"


def published(weights: str, train: TrainConfig) -> State:
    """The tensors that a library publishes under a name, from its cache or fetched."""
    name = weights.partition(":")[2]
    if weights.startswith(FROM_TORCHVISION):
        entry = _entry(name)
        with fetching(weights, entry.url, KEY):
            state: State = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
        return state
    timm = _library("timm")
    about = timm.get_pretrained_cfg(name)
    size = {"img_size": train.image_size} if about.fixed_input_size else {}
    with fetching(weights, f"https://huggingface.co/{about.hf_hub_id}", KEY), torch.random.fork_rng(devices=[]):
        network: torch.nn.Module = timm.create_model(name, pretrained=True, num_classes=0, **size)
    return network.state_dict()


def _timm_name(name: str) -> str:
    timm = _library("timm")
    model, _, tag = name.partition(".")
    _known(model, timm.list_models(), "timm has no network")
    tags = [each.partition(".")[2] for each in timm.list_models(f"{model}.*", pretrained=True)]
    _known(tag or str(timm.get_pretrained_cfg(model).tag), tags, f"timm publishes no weights of {model} called")
    return f"{model}.{tag or timm.get_pretrained_cfg(model).tag}"


def _entry(name: str) -> Any:  # noqa: ANN401
    """Weights of torchvision by a network's name, or by theirs: ResNet18_Weights.IMAGENET1K_V1."""
    models = _library("torchvision").models
    networks = models.list_models(module=models)
    if name in networks:
        return models.get_model_weights(name).DEFAULT
    entries = {str(entry): entry for each in networks for entry in models.get_model_weights(each)}
    _known(name, [*networks, *entries], "torchvision has no weights")
    return entries[name]


def _library(name: str) -> Any:  # noqa: ANN401
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise RecipeError(f"{name} is not installed", f"pip install {name}") from error


def _known(given: str, names: Iterable[str], what: str) -> None:
    names = list(names)
    if given not in names:
        near = difflib.get_close_matches(given, names, n=NEAREST, cutoff=0.4) or names[:NEAREST]
        raise RecipeError(f"{KEY}: {what} {given!r}", f"nearest: {', '.join(near) or 'none are published'}")


@contextmanager
def fetching(weights: str, source: str, key: str) -> Iterator[None]:
    """Name the remedy when a library cannot get the weights that it downloads: `key` may be set to their file."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise RecipeError(
            f"the weights {weights} cannot be fetched: {first_line(error)}",
            f"download their file where there is a network ({source}) and set {key} to its path",
        ) from error
