"""A second network: the running average of the one that is trained, which sees the same pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xclr.objective import at_least_float32
from xclr.training.model import with_maps
from xclr.training.objectives.materials import Averaging
from xclr.training.objectives.towers import unit
from xclr.training.objectives.views import other_view


class Average(nn.Module):
    """A backbone and a head whose weights follow those of others slowly; nothing in it has a gradient.

    w' <- w' + max(1 - momentum, 1 / t) (w - w') after step t: the mean of all so far, and later a running one. So are
    the statistics of batch norms, which it normalises with: what it makes of a picture depends on no other picture of
    the batch, so that nothing of them leaks into a key. Source: arXiv 1911.05722, equation 2, for the weights, but for
    the 1 / t, which has the statistics arrive in time; arXiv 2101.08482 for these.
    """

    steps: Tensor

    def __init__(self, backbone: nn.Module, wanted: Averaging) -> None:
        super().__init__()
        self.backbone, self.head = (deepcopy(each).requires_grad_(False) for each in (backbone, wanted.head))
        self.wanted = wanted
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.train()

    def train(self, mode: bool = True) -> Average:
        """It never trains."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, views: Tensor) -> tuple[Tensor, ...]:
        """Unit rows [n, d] of views, and the maps of the backbone's stages where they are wanted."""
        features, *maps = see(self.backbone, views, self.wanted)
        return unit(self.head(features)), *maps

    @torch.no_grad()
    def follow(self, backbone: nn.Module) -> None:
        """Come nearer to the networks that are followed; once after each step."""
        self.steps += 1
        share = (1 / self.steps).clamp(min=1 - self.wanted.momentum)
        own, others = list(_state(self.backbone, self.head)), list(_state(backbone, self.wanted.head))
        gaps = torch._foreach_sub(others, own)
        torch._foreach_mul_(gaps, share)
        torch._foreach_add_(own, gaps)


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


def _state(*networks: nn.Module) -> Iterator[Tensor]:
    """Weights and statistics, without counts of batches."""
    every = chain.from_iterable(chain(each.parameters(), each.buffers()) for each in networks)
    return (each.detach() for each in every if each.is_floating_point())
