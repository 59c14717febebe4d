"""A second network: the running average of the one that is trained, which sees the same pictures."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from xclr.objective import at_least_float32
from xclr.training.model import with_maps
from xclr.training.objectives.materials import Averaging
from xclr.training.objectives.towers import unit
from xclr.training.objectives.views import other_view


class Average(nn.Module):
    """A backbone and a head whose weights follow those of others slowly; nothing in it has a gradient.

    w' <- momentum w' + (1 - momentum) w after each step. Source: arXiv 1911.05722, equation 2. Batch norms normalise
    with their own batch, that of all ranks: as the network does that is trained, and with nothing to shuffle between
    ranks. Dropout is off.
    """

    def __init__(self, backbone: nn.Module, wanted: Averaging) -> None:
        super().__init__()
        self.backbone, self.head = (deepcopy(each).requires_grad_(False) for each in (backbone, wanted.head))
        self.wanted = wanted
        self.train()

    def train(self, mode: bool = True) -> Average:
        """It never trains, but for its batch norms."""
        super().train(False)
        for each in self.modules():
            if isinstance(each, _BatchNorm):
                each.train(mode)
        return self

    @torch.no_grad()
    def forward(self, views: Tensor) -> tuple[Tensor, ...]:
        """The features [n, d] of views, and the maps of the backbone's stages where they are wanted."""
        return see(self.backbone, views, self.wanted)

    @torch.no_grad()
    def project(self, features: Tensor) -> Tensor:
        """Unit rows [n, out] of features [n, d]."""
        return unit(self.head(features))

    @torch.no_grad()
    def follow(self, backbone: nn.Module) -> None:
        """Come nearer to the networks that are followed; once after each step."""
        own, others = _weights(self.backbone, self.head), _weights(backbone, self.wanted.head)
        torch._foreach_lerp_(own, others, 1 - self.wanted.momentum)


def see(backbone: nn.Module, views: Tensor, wanted: Averaging | None) -> tuple[Tensor, ...]:
    """The features [n, d] of views, and the maps of the backbone's stages where they are wanted."""
    return with_maps(backbone, views) if wanted is not None and wanted.maps else (backbone(views),)


def distance(maps: Iterable[Tensor], others: Iterable[Tensor]) -> Tensor:
    """sum_l mean((a_l - b_l)^2) between maps [2b, ...] of one view in one network and of the other view in another.

    In float32 or wider; nothing is normalised. Source: arXiv 2110.14805 and its public code, with equal weights.
    """
    return torch.stack([
        F.mse_loss(a.to(at_least_float32(a)), other_view(b).to(at_least_float32(b)))
        for a, b in zip(maps, others, strict=True)
    ]).sum()  # fmt: skip


def _weights(*networks: nn.Module) -> list[Tensor]:
    return [each.detach() for network in networks for each in network.parameters()]
