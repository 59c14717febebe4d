"""Backbones of timm, by the names that it gives them."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from xclr.errors import RecipeError
from xclr.recipe import TIMM, TrainConfig

UNFIT = (AssertionError, RuntimeError, TypeError, ValueError)  # what its networks raise on pictures of another size
NEAREST = 3  # names in a message


def timm_model(config: TrainConfig) -> tuple[nn.Module, int]:
    """A network of timm with fresh weights and without its classifier, and its number of pooled features.

    One whose pictures have a fixed size is made for those of image_size. Raises RecipeError for a name that timm does
    not have, with the nearest, and for a size that the network does not take.
    """
    timm, name = _timm(), config.backbone.removeprefix(TIMM)
    _check_name(name, timm.list_models())
    fixed = timm.get_pretrained_cfg(name).fixed_input_size
    size = {"img_size": config.image_size} if fixed else {}
    try:
        network: Any = timm.create_model(name, num_classes=0, **size)
    except UNFIT as error:
        raise unfit(config, error) from error
    return network, int(getattr(network, "head_hidden_size", None) or network.num_features)


def checkpoint_blocks(network: Any, config: TrainConfig) -> None:  # noqa: ANN401
    """Have timm compute activations again in backward; RecipeError where it cannot.

    Batch norms would count a batch twice.
    """
    try:
        if any(isinstance(each, _BatchNorm) for each in network.modules()):
            raise ValueError("it has batch norms")
        network.set_grad_checkpointing(True)
    except (AssertionError, AttributeError, ValueError) as error:
        raise RecipeError(
            f"train.activation_checkpointing is not for {config.backbone}: {error}",
            "leave it out, and set train.micro_batch to keep fewer activations in memory",
        ) from error


def unfit(config: TrainConfig, error: Exception) -> RecipeError:
    """What to say of a network that does not take pictures of image_size."""
    said, size = (str(error).splitlines() or [type(error).__name__])[0][:200], config.image_size
    return RecipeError(
        f"{config.backbone} does not take pictures of {size} x {size} pixels: {said}",
        "--set train.image_size=224, or another size that it is made for",
    )


def _timm() -> Any:  # noqa: ANN401
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise RecipeError("timm is not installed", "pip install timm") from error


def _check_name(name: str, names: list[str]) -> None:
    if name in names:
        return
    model, _, tag = name.partition(".")
    if model in names:
        raise RecipeError(f"{TIMM}{name}: {tag} names weights, not a network", f"set train.backbone to {TIMM}{model}")
    near = difflib.get_close_matches(name, names, n=NEAREST, cutoff=0.4) or names[:NEAREST]
    raise RecipeError(f"timm has no network {name!r}", "nearest: " + ", ".join(f"{TIMM}{each}" for each in near))
