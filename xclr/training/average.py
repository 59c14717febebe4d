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
    the batch, so that nothing of them leaks into a key. Source: arXiv 1911.05722, equation 2, for the weights;
    arXiv 2101.08482, section 3, for the statistics.
    """

    steps: Tensor

    def __init__(self, backbone: nn.Module, head: nn.Module, asked: Averaging) -> None:
        super().__init__()
        self.backbone, self.head = (deepcopy(each).requires_grad_(False) for each in (backbone, head))
        self.asked = asked
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.train()

    def train(self, mode: bool = True) -> Average:
        """It never trains."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, views: Tensor) -> tuple[Tensor, ...]:
        """Unit rows [n, d] of views, and what leaves each stage of the backbone where that is asked."""
        features, *maps = see(self.backbone, views, self.asked)
        return unit(self.head(features)), *maps

    @torch.no_grad()
    def follow(self, backbone: nn.Module, head: nn.Module) -> None:
        """Come nearer to the networks that are followed; once after each step."""
        self.steps += 1
        share = (1 / self.steps).clamp(min=1 - self.asked.momentum)
        own, others = list(_state(self.backbone, self.head)), list(_state(backbone, head))
        torch._foreach_add_(own, torch._foreach_mul(torch._foreach_sub(others, own), share))


def see(backbone: nn.Module, views: Tensor, asked: Averaging | None) -> tuple[Tensor, ...]:
    """The features [n, d] of views, and what leaves each stage of the backbone where an average is to have it too."""
    return with_maps(backbone, views) if asked is not None and asked.stages else (backbone(views),)


def distance(maps: Iterable[Tensor], others: Iterable[Tensor]) -> Tensor:
    """sum_l mean((a_l - b_l)^2) between maps [2b, ...] of one view in one network and of the other view in another.

    In float32 or wider. Source: arXiv 2110.14805, equation 2, with equal weights; its public code does not normalise
    them either.
    """
    return torch.stack([
        F.mse_loss(a.to(at_least_float32(a)), other_view(b).to(at_least_float32(b)))
        for a, b in zip(maps, others, strict=True)
    ]).sum()  # fmt: skip


def _state(*networks: nn.Module) -> Iterator[Tensor]:
    """Weights and statistics, without counts of batches."""
    every = chain.from_iterable(chain(each.parameters(), each.buffers()) for each in networks)
    return (each.detach() for each in every if each.is_floating_point())
