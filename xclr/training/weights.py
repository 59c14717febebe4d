"""Weights from files: state dicts of tensors alone, fitted to a network by their names and shapes."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from xclr.errors import RecipeError
from xclr.recipe import TrainConfig
from xclr.training.model import build_backbone

NESTED = ("state_dict", "model", "backbone")  # keys under which a file may hold it
DEPTH = 4  # of such keys in one another
PREFIXES = ("module.", "backbone.")  # that names of weights may begin with
COUNTED = "num_batches_tracked"  # which no training needs
UNREADABLE = (  # what torch and safetensors raise on broken bytes, and on objects that they do not make
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    struct.error,
    pickle.UnpicklingError,
    SafetensorError,
)

State = Mapping[str, Tensor]


def read_state(path: Path) -> State:
    """The tensors of a state dict by name; raises RecipeError for a file that is not there or holds anything else.

    Nothing that a file says is run.
    """
    if not path.is_file():
        raise RecipeError(f"there is no file {path}", "set the weights to a file, or to a published name")
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except UNREADABLE as error:
        raise _unreadable(path, first_line(error)) from error
    for _ in range(DEPTH):  # a mapping may hold itself
        if isinstance(loaded, Mapping) and (inner := [loaded[key] for key in NESTED if _is_mapping(loaded.get(key))]):
            loaded = inner[0]
    items = loaded.items() if _is_mapping(loaded) else ()
    state = {name: each for name, each in items if isinstance(name, str) and isinstance(each, Tensor)}
    if not state:
        raise _unreadable(path, "it holds no tensors by name")
    if odd := next((name for name, each in state.items() if not _is_plain(each)), None):
        raise _unreadable(path, f"{odd} holds no numbers, or some that are not finite")
    return state


def _is_plain(weights: Tensor) -> bool:
    """Whether a tensor holds its numbers, all of them finite, one by one."""
    return not weights.is_meta and weights.layout == torch.strided and bool(torch.isfinite(weights).all())


def fitted(state: State, network: nn.Module, head: str = "") -> State:
    """The weights of a network out of a state dict; ValueError counts what is missing, other or left over.

    What the state dict has for modules that the network does not have, or for its `head`, is left out; names may have
    PREFIXES before them.
    """
    own = network.state_dict()
    state = _own_names(state, own)
    needed = [name for name in own if not name.endswith(COUNTED)]
    modules = {name.partition(".")[0] for name in own} - {head}
    faults = {
        "missing": [name for name in needed if name not in state],
        "of another shape": [name for name in needed if name in state and state[name].shape != own[name].shape],
        "left over": [name for name in state if name not in own and name.partition(".")[0] in modules],
    }
    if any(faults.values()):
        found = (f"{len(names)} {what} (first {names[0]})" for what, names in faults.items() if names)
        raise ValueError(", ".join(found))
    return {name: each for name, each in state.items() if name in own}


def weights_for(train: TrainConfig, state: State, called: str) -> dict[str, Tensor]:
    """A backbone's weights out of a state dict, in its own types, all of them; RecipeError where they do not fit."""
    with torch.device("meta"):
        backbone, _ = build_backbone(train)
    try:
        found = fitted(state, backbone)
    except ValueError as error:
        raise RecipeError(
            f"train.init: the weights {called} do not fit {train.backbone}: {error}",
            "set train.backbone to the network that they are of, at the train.image_size that it had",
        ) from error
    return {name: _of_type(found.get(name), each) for name, each in backbone.state_dict().items()}


def _of_type(given: Tensor | None, own: Tensor) -> Tensor:
    """A weight, or zero batches counted."""
    return torch.zeros(own.shape, dtype=own.dtype) if given is None else given.to(own.dtype).clone()


def first_line(error: BaseException) -> str:
    """What an error says, cut to a line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _own_names(state: State, own: State) -> State:
    """A state dict without what all names of a network's weights begin with in a file, and they alone."""
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in own):
            state = {name.removeprefix(prefix): each for name, each in state.items() if name.startswith(prefix)}
    return state


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _unreadable(path: Path, why: str) -> RecipeError:
    return RecipeError(
        f"{path} is not a state dict of tensors alone: {why}",
        "save the network's state_dict(), and nothing else, with torch.save or safetensors",
    )
