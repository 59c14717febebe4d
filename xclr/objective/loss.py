"""The contrastive loss, X-CLR as a choice of its targets, and the block-wise twin of X-CLR."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from xclr.objective.targets import at_least_float32, excluding, soft_targets

BLOCK_ELEMENTS = 2**20  # of one [block, n] buffer: 4 MB in float32 stays near a core's cache


def contrastive(logits: Tensor, targets: Tensor, log_weights: Tensor | None = None) -> Tensor:
    """Mean over the rows of attraction to the targets and repulsion from the weighted candidates.

    mean_i [ -sum_j targets_ij logits_ij + logsumexp_j(logits_ij + log_weights_ij) ], in float32 or wider.

    logits: [b, B], similarity / temperature. targets: [b, B], rows usually sum to 1. log_weights: broadcastable to
    [b, B], 0 where a candidate counts once, -inf where it is out of the denominator. A cell with target 0 adds nothing
    to the first term and a cell at -inf nothing to the second, whatever its logit: no 0 * -inf. Returns a scalar, -inf
    when a row has every candidate excluded.
    Raises ValueError when logits are not a filled [b, B] or targets have another shape.
    Source: arXiv 2407.18134, equation of the loss; the form with weights covers SimCLR, SupCon, CLIP and DCL.
    """
    if logits.ndim != 2 or logits.numel() == 0 or targets.shape != logits.shape:
        raise ValueError(f"logits {list(logits.shape)} and targets {list(targets.shape)} must be one filled [b, B]")
    dtype = at_least_float32(logits, targets)
    logits, targets = logits.to(dtype), targets.to(dtype)
    attraction = (targets * logits.masked_fill(targets == 0, 0.0)).sum(dim=1)
    if log_weights is not None:
        weights = log_weights.to(dtype).expand_as(logits)
        logits = (logits + weights).masked_fill(weights == -math.inf, -math.inf)
    return (logits.logsumexp(dim=1) - attraction).mean()


def cosine_logits(queries: Tensor, keys: Tensor, *, temperature: float | Tensor) -> Tensor:
    """Similarities of unit rows over a temperature, in float32 or wider even under autocast.

    logits_ij = queries_i . keys_j / temperature

    queries: [b, d]. keys: [B, d]. temperature: positive, a tensor when it is learned. Returns [b, B].
    """
    dtype = at_least_float32(queries, keys)
    with torch.autocast(queries.device.type, enabled=False):
        return (queries.to(dtype) / temperature) @ keys.to(dtype).T


def xclr_loss(z: Tensor, similarity: Tensor, *, temperature: float = 0.1, target_temperature: float = 0.1) -> Tensor:
    """X-CLR: cross-entropy between the softmax of a similarity graph and that of the projections.

    L = -(1/n) sum_i sum_{j != i} s_ij log p_ij;  p_ij ~ exp(z_i . z_j / temperature),
    s_ij ~ exp(similarity_ij / target_temperature), both normalised over k != i; no gradient through s.

    z: [n, d] unit rows, n = 2N: view 1 of all samples, then view 2. similarity: [n, n], in the same order; a graph
    G over N samples is G.repeat(2, 2). Returns a scalar. Raises ValueError when the shapes do not fit.
    Source: arXiv 2407.18134, section 3.
    """
    n = _rows(z)
    if similarity.shape != (n, n):
        raise ValueError(f"similarity is {list(similarity.shape)}, not {[n, n]}; expand a graph with G.repeat(2, 2)")
    itself = torch.eye(n, dtype=torch.bool, device=z.device)
    targets = soft_targets(similarity, temperature=target_temperature, exclude=itself)
    return contrastive(cosine_logits(z, z, temperature=temperature), targets, excluding(itself))


def xclr_loss_from_embeddings(
    z: Tensor, e: Tensor, *, temperature: float = 0.1, target_temperature: float = 0.1, block: int | None = None
) -> Tensor:
    """X-CLR on the Gram matrix of caption embeddings, block by block: memory grows with block * n, never with n * n.

    The value and the gradient of xclr_loss(z, e @ e.T, ...). With p and s the softmaxes of xclr_loss and
    A = (p - s) / n, dL/dz = (A + A^T) z / temperature, summed over row blocks while the loss is computed.

    z: [n, d] unit rows, view 1 of all samples, then view 2. e: [n, D] unit rows in the same order, no gradient.
    block: rows per step, chosen from n when None. Returns a scalar that can be differentiated once.
    Raises ValueError when the shapes do not fit or a temperature or block is not positive.
    """
    n = _rows(z)
    if e.ndim != 2 or e.shape[0] != n:
        raise ValueError(f"e is {list(e.shape)}; it needs one caption row for each of the {n} rows of z")
    if block is None:
        block = default_block(n)
    if min(temperature, target_temperature, block) <= 0:
        raise ValueError(f"temperatures {temperature}, {target_temperature} and block {block} must be positive")
    dtype = at_least_float32(z, e)
    plan = _Plan(temperature, target_temperature, min(block, n), torch.is_grad_enabled() and z.requires_grad)
    with torch.autocast(z.device.type, enabled=False):
        loss: Tensor = _BlockwiseXCLR.apply(z.to(dtype), e.detach().to(dtype), plan)
    return loss


def default_block(n: int) -> int:
    """Rows per step: BLOCK_ELEMENTS cells, at least 64 rows for the matrix products, at most an eighth of n."""
    return max(1, min(max(BLOCK_ELEMENTS // n, 64), n // 8))


@dataclass(frozen=True, slots=True)
class _Plan:
    temperature: float
    target_temperature: float
    block: int
    with_gradient: bool


class _BlockwiseXCLR(torch.autograd.Function):
    """The loss forward, its gradient kept from the same pass: [n, d] is all that backward needs."""

    @staticmethod
    def forward(ctx: FunctionCtx, z: Tensor, e: Tensor, plan: _Plan) -> Tensor:
        loss, gradient = _blockwise(z, e, plan)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad_output * gradient, None, None


def _blockwise(z: Tensor, e: Tensor, plan: _Plan) -> tuple[Tensor, Tensor]:
    """The loss and dL/dz from two [block, n] buffers."""
    n = z.shape[0]
    scaled_z, scaled_e = z / plan.temperature, e / plan.target_temperature
    buffers = z.new_empty(2, plan.block, n)
    loss, gradient = z.new_zeros(()), torch.zeros_like(z)
    for start in range(0, n, plan.block):
        rows = slice(start, min(start + plan.block, n))
        logits, targets = buffers[:, : rows.stop - start]
        torch.mm(scaled_z[rows], z.T, out=logits)
        torch.mm(scaled_e[rows], e.T, out=targets)
        loss += _loss_and_slope(logits, targets, start)
        if plan.with_gradient:
            gradient[rows].addmm_(logits, scaled_z)
            gradient.addmm_(logits.T, scaled_z[rows])
    return loss / n, gradient / n


def _loss_and_slope(logits: Tensor, targets: Tensor, start: int) -> Tensor:
    """Sum the loss of rows start, start + 1, ... and overwrite logits [b, n] by their derivative p - s."""
    itself, itself_in_targets = logits.diagonal(start), targets.diagonal(start)
    itself_in_targets.fill_(-math.inf)
    _softmax_(targets)
    itself.zero_()  # 0 * 0 here, where 0 * -inf would be NaN
    attraction = torch.dot(targets.flatten(), logits.flatten())
    itself.fill_(-math.inf)
    repulsion = _softmax_(logits).sum()
    logits.sub_(targets)
    return repulsion - attraction


def _softmax_(rows: Tensor) -> Tensor:
    """Turn rows [b, n] into their softmax in place; returns the log-sum-exp [b, 1]."""
    top = rows.amax(dim=1, keepdim=True)
    total = rows.sub_(top).exp_().sum(dim=1, keepdim=True)
    rows.div_(total)
    return total.log_().add_(top)


def _rows(z: Tensor) -> int:
    if z.ndim != 2 or z.shape[0] < 2:
        raise ValueError(f"z is {list(z.shape)}; it must be [n, d] with at least two rows")
    return z.shape[0]
