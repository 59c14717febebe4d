"""The frozen networks that are judged: pretrained here, or from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from xclr.artifact import Artifact
from xclr.evaluation.networks.elsewhere import rebuild
from xclr.evaluation.stages import ReferenceConfig
from xclr.images.preparation import Preparation
from xclr.store import Store
from xclr.training import CHECKPOINT, build_backbone
from xclr.training.stages import PretrainConfig
from xclr.training.views import preparation_of


@dataclass(frozen=True, eq=False)
class Network:
    """A frozen backbone in evaluation mode, on its device; `width` features a picture, `preparation` what it sees."""

    backbone: nn.Module
    width: int
    preparation: Preparation
    device: torch.device


def open_network(checkpoint: Artifact, device: torch.device | None = None) -> Network:
    """The backbone of a checkpoint or of a network from elsewhere; channels-last, on a GPU where there is one.

    device: where it goes instead.
    """
    manifest = Store.of(checkpoint.path).manifest(checkpoint)
    state = torch.load(checkpoint.path / CHECKPOINT, map_location="cpu", weights_only=True)["backbone"]
    if manifest.kind == "reference":
        reference = ReferenceConfig.model_validate(manifest.config).reference
        backbone, width, preparation = rebuild(reference, state, manifest.stats["preparation"])
    else:
        train = PretrainConfig.model_validate(manifest.config).train
        backbone, width = build_backbone(train)
        backbone.load_state_dict(state)
        preparation = preparation_of(train)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    frozen = backbone.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
    return Network(frozen, width, preparation, device)
