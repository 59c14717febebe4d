"""BatchNorm over the batch of all ranks, on CPU: torch.nn.SyncBatchNorm refuses CPU tensors."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from xclr.errors import RecipeError


class SyncBatchNorm(_BatchNorm):
    """BatchNorm1d, 2d or 3d over the concatenated batch of all ranks.

    y = (x - mean) / sqrt(var + eps) * weight + bias, mean and biased var over the values of all ranks.

    Input [b, c, ...], output alike. Running statistics take the unbiased variance and are equal on all ranks; weight
    and bias get this rank's gradient, which DDP averages. Without a process group, or in eval mode, it is BatchNorm.
    Source: arXiv 1502.03167.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        mean, var, count = _global_statistics(input.detach())
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            step = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), step)
            self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var.dtype), step)
        return _Normalise.apply(input, self.weight, self.bias, mean, var, count, self.eps)  # type: ignore[no-any-return]

    def _check_input_dim(self, input: Tensor) -> None:
        """Every [b, c, ...] will do."""


def _global_statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean [c], biased variance [c] and values per channel over all ranks, by one all-reduce.

    The moments travel in float64: their difference then keeps all digits of a float32 variance.
    """
    wide, local = torch.promote_types(x.dtype, torch.float32), x.numel() // x.shape[1]
    start = x.new_zeros(x.shape[1], dtype=wide)
    mean, var = (each.double() for each in torch.batch_norm_update_stats(x, start, torch.ones_like(start), 0.0))
    moments = torch.cat([local * mean, local * (var + mean.square()), mean.new_tensor([local])])
    dist.all_reduce(moments)
    count = int(moments[-1])
    mean, square = (moments[:-1] / count).chunk(2)
    return mean.to(wide), (square - mean.square()).clamp_(min=0).to(wide), count


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, *stats: Any) -> Tensor:  # noqa: ANN401
        mean, var, ctx.count, ctx.eps = stats
        ctx.save_for_backward(x, weight, mean, var)
        return F.batch_norm(x, mean, var, weight, bias, eps=ctx.eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """dx = (weight / std) (dy - mean(dy) - xhat mean(dy xhat)), means over all ranks, by one all-reduce."""
        x, weight, mean, var = ctx.saved_tensors
        _, *affine = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, var, None, None, False, ctx.eps, [False, True, True]
        )
        sums = torch.cat(affine)  # of dy xhat and of dy
        dist.all_reduce(sums)
        slope = (var + ctx.eps).rsqrt() * (1 if weight is None else weight)
        by_xhat, constant = (slope.repeat(2) * sums / -ctx.count).chunk(2)
        grad_x = F.batch_norm(x, mean, var, by_xhat, constant, eps=ctx.eps)
        grad_x.addcmul_(grad, slope.view(-1, *[1] * (x.dim() - 2)))
        return grad_x, *(affine if weight is not None else (None, None)), None, None, None, None


def convert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm by one over all ranks: the project's on CPU, torch.nn.SyncBatchNorm on CUDA.

    Parameters and buffers are shared with the old layers, so an optimizer made before stays valid. A layer of timm
    that also drops and activates goes on doing so. Returns the module, or its replacement when it is itself a
    BatchNorm. Raises RecipeError for one that does something else.
    """
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        on_cuda = any(each.is_cuda for each in tensors)
        return _with_activation(_on_cuda(module) if on_cuda else _on_cpu(module), module)
    for name, child in module.named_children():
        setattr(module, name, convert_sync_batchnorm(child))
    return module


def _on_cpu(module: _BatchNorm) -> SyncBatchNorm:
    norm = SyncBatchNorm(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
    norm.weight, norm.bias = module.weight, module.bias
    norm.running_mean, norm.running_var = module.running_mean, module.running_var
    norm.num_batches_tracked = module.num_batches_tracked
    return norm.train(module.training)


def _on_cuda(module: nn.Module) -> nn.Module:
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return converted


def _with_activation(norm: nn.Module, before: nn.Module) -> nn.Module:
    """The norm, doing after it what the layer before did (timm's BatchNormAct2d); names of weights stay."""
    if type(before).forward is _BatchNorm.forward:
        return norm
    if not isinstance(getattr(before, "act", None), nn.Module):
        raise RecipeError(
            f"{type(before).__name__} cannot be taken over all ranks", "choose a backbone with plain batch norms"
        )
    norm.drop, norm.act = before.drop, before.act
    norm.register_forward_hook(_activated)
    return norm


def _activated(norm: Any, _: object, out: Tensor) -> Tensor:  # noqa: ANN401
    return norm.act(norm.drop(out))  # type: ignore[no-any-return]
