"""Which other libraries know a backbone: how they build it, and what they call its weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from xclr.recipe import PATCH, TIMM, TrainConfig

State = Mapping[str, Tensor]


def as_they_are(state: State) -> State:
    """The names that a backbone has."""
    return state


class Torchvision(NamedTuple):
    """A backbone as torchvision builds it: the call below torchvision.models, and its attribute for a classifier."""

    call: str
    head: str


class Timm(NamedTuple):
    """A backbone as timm builds it: its architecture and arguments, layers that its configs name, and its names."""

    architecture: str
    first_conv: str | tuple[str, ...]
    classifier: str | tuple[str, ...]
    global_pool: str = ""  # the architecture's own
    options: Mapping[str, Any] = {}
    renamed: Callable[[State], State] = as_they_are


class Known(NamedTuple):
    """A backbone as others know it; None where they do not."""

    torchvision: Torchvision | None = None
    timm: Timm | None = None


VIT_NAMES = (  # torchvision's, and timm's
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
)


def as_timm_vit(state: State) -> State:
    """A vision transformer's weights under timm's names."""
    return {_renamed(name): each for name, each in state.items()}


def _renamed(name: str) -> str:
    for pattern, instead in VIT_NAMES:
        name = re.sub(pattern, instead, name)
    return name


def _resnet(train: TrainConfig) -> Known:
    timm = Timm(train.backbone, first_conv="conv1", classifier="fc", global_pool="avg")
    return Known(Torchvision(f"{train.backbone}()", head="fc"), timm)


def _vit(size: str, shape: str) -> Callable[[TrainConfig], Known]:
    def known(train: TrainConfig) -> Known:
        side = train.image_size
        return Known(
            Torchvision(f"VisionTransformer({side}, {PATCH}, {shape})", head="heads"),
            Timm(
                f"vit_{size}_patch{PATCH}_224",
                first_conv="patch_embed.proj",
                classifier="head",
                global_pool="token",
                options={"img_size": side},
                renamed=as_timm_vit,
            ),
        )

    return known


KNOWN: Mapping[str, Callable[[TrainConfig], Known]] = {  # by backbone
    **dict.fromkeys(("resnet18", "resnet34", "resnet50"), _resnet),
    "vit-small": _vit("small", "num_layers=12, num_heads=6, hidden_dim=384, mlp_dim=1536"),
    "vit-base": _vit("base", "num_layers=12, num_heads=12, hidden_dim=768, mlp_dim=3072"),
}


def known(train: TrainConfig) -> Known:
    """What other libraries know of a backbone; nothing of one that is this project's own."""
    if train.backbone.startswith(TIMM):
        return _of_timm(train)
    return KNOWN[train.backbone](train) if train.backbone in KNOWN else Known()


def _of_timm(train: TrainConfig) -> Known:
    """A backbone of timm's own, in the size that it was made for."""
    import timm

    name = train.backbone.removeprefix(TIMM)
    about = timm.get_pretrained_cfg(name)
    options = {"img_size": train.image_size} if about.fixed_input_size else {}
    return Known(timm=Timm(name, about.first_conv, about.classifier, options=options))
