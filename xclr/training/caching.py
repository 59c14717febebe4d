"""A batch larger than memory holds activations for: the loss of the whole, its gradient block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from xclr.training.batches import Batch
from xclr.training.model import without_statistics
from xclr.training.objectives.materials import Looked, StepLoss
from xclr.training.ranks import Rank


class TwoHalves(Protocol):
    """A model whose features and whose loss are computed apart."""

    backbone: nn.Module

    def embed(self, views: Tensor) -> tuple[Tensor, ...]:
        """Features [n, d] and maps of views [n, 3, s, s]."""
        ...

    def embed_averaged(self, views: Tensor) -> tuple[Tensor, ...]:
        """What an average makes of them, without a gradient."""
        ...

    def compare(
        self, embedded: tuple[Tensor, ...], averaged: tuple[Tensor, ...], rows: Tensor, looked: Looked
    ) -> StepLoss:
        """The loss of what was embedded of [2b] views."""
        ...


def cached_step(model: TwoHalves, batch: Batch, size: int, scaled: Callable[[Tensor], Tensor]) -> StepLoss:
    """The outcome of a batch and, in every parameter, the gradient of its loss, with activations of `size` views.

    dL/dw = sum_blocks (dL/df_block) df_block/dw: all features f first, without a graph; then the loss of them all,
    whose slopes dL/df are kept; then each block again, with a graph. The same as in one pass, but that a batch norm in
    the backbone normalises each block by itself; its running statistics count a block once. Source: arXiv 2101.06983.
    """
    blocks = torch.split(batch.views, size)
    with torch.no_grad(), without_statistics(model.backbone):
        embedded = _joined(model.embed(each) for each in blocks)
    averaged = _joined(model.embed_averaged(each) for each in blocks)
    outcome = model.compare(tuple(each.requires_grad_() for each in embedded), averaged, batch.rows, batch.looked)
    scaled(outcome.loss).backward()  # type: ignore[no-untyped-call]
    slopes = [torch.split(each.grad, size) for each in embedded if each.grad is not None]
    for views, *of_block in zip(blocks, *slopes, strict=True):
        torch.autograd.backward(model.embed(views), of_block)
    return outcome


def _joined(parts: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(each) for each in zip(*parts, strict=True))


def average_gradients(model: nn.Module, place: Rank) -> None:
    """Give every rank the mean of the gradients of all, in one exchange."""
    if place.world == 1:
        return
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    total = torch.cat([each.flatten() for each in gradients])
    dist.all_reduce(total)
    parts = torch.split(total / place.world, [each.numel() for each in gradients])
    for own, mean in zip(gradients, parts, strict=True):
        own.copy_(mean.view_as(own))
