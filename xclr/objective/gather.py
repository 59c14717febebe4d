"""Candidates of all ranks, with gradient.

Each rank computes the mean loss of ITS OWN b anchors against the B = world * b candidates of all ranks; no factor of
the world size anywhere. Why this is the single-process gradient: the global loss is L = (1/world) sum_r L_r. Backward
through the gather sums over ranks, so rank s receives sum_r dL_r/dz_s = world * dL/dz_s for its own rows; DDP then
averages the parameter gradients over ranks, (1/world) sum_s (world * dL/dz_s) dz_s/dw = dL/dw. A parameter inside the
loss (CLIP's scale) gets dL_r/dw on rank r, and DDP's mean of those is dL/dw as well.

Every rank must hold the same number of rows. Without a process group, or alone in it, gathering changes nothing.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def world_and_rank() -> tuple[int, int]:
    """The number of ranks and this one's, (1, 0) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size(), dist.get_rank()
    return 1, 0


def gather_rows(x: Tensor) -> Tensor:
    """The rows of all ranks in rank order; the gradient of floating rows is summed over ranks.

    x: [b, ...], the same shape and dtype on every rank. Returns [world * b, ...].
    """
    if world_and_rank()[0] == 1:
        return x
    rows: Tensor = _GatherRows.apply(x)
    return rows


def gather_views(z: Tensor) -> Tensor:
    """The views of all ranks in canonical order: all first views in rank order, then all second views.

    z: [2b, d], this rank's first views, then its second views. Returns [2 * world * b, d], where row i is what row i of
    a single process with the concatenated batch would be. Raises ValueError when the number of rows is odd.
    """
    if z.shape[0] % 2:
        raise ValueError(f"{z.shape[0]} rows are not two views of each sample")
    world, _ = world_and_rank()
    if world == 1:
        return z
    by_rank = gather_rows(z).reshape(world, 2, z.shape[0] // 2, *z.shape[1:])
    return by_rank.transpose(0, 1).flatten(0, 2)


def anchor_index(b: int, *, views: int = 2, device: torch.device | None = None) -> Tensor:
    """Where this rank's rows stand among the gathered candidates in canonical order.

    Local row v * b + i is column v * world * b + rank * b + i. b: samples on this rank. Returns int64 [views * b].
    """
    world, rank = world_and_rank()
    view, sample = torch.arange(views, device=device), torch.arange(b, device=device)
    return (view[:, None] * (world * b) + rank * b + sample).flatten()


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: FunctionCtx, x: Tensor) -> Tensor:
        world, _ = world_and_rank()
        rows = x.new_empty((world * x.shape[0], *x.shape[1:]))
        dist.all_gather(list(rows.chunk(world)), x.contiguous())
        return rows

    @staticmethod
    @once_differentiable
    def backward(_ctx: FunctionCtx, grad_rows: Tensor) -> Tensor:
        parts = grad_rows.contiguous().chunk(world_and_rank()[0])
        grad = torch.empty_like(parts[0])
        dist.reduce_scatter(grad, list(parts))
        return grad
