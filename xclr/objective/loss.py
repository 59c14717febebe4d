"""The contrastive loss, plain and block by block, and X-CLR as a choice of its targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from xclr.objective.targets import at_least_float32, excluding, soft_targets, without
from xclr.objective.unit import check_inputs

BLOCK_ELEMENTS = 2**20  # of one [block, n] buffer: 4 MB in float32 stays near a core's cache
BLOCKS = 24  # on a GPU, where a block costs 15 launches whatever its size; its two buffers hold n * n / 12 numbers

TargetRows = Callable[[slice], Tensor]  # of anchors -> their targets [r, B], a tensor of the caller's own


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


def xclr_loss(
    z: Tensor, similarity: Tensor, *, temperature: float = 0.1, target_temperature: float = 0.1, check: bool = True
) -> Tensor:
    """X-CLR: cross-entropy between the softmax of a similarity graph and that of the projections.

    L = -(1/n) sum_i sum_{j != i} s_ij log p_ij;  p_ij ~ exp(z_i . z_j / temperature),
    s_ij ~ exp(similarity_ij / target_temperature), both normalised over k != i; no gradient through s.

    z: [n, d] unit rows, n = 2N: view 1 of all samples, then view 2. similarity: [n, n], in the same order; a graph
    G over N samples is G.repeat(2, 2). Returns a scalar. Raises ValueError when the shapes do not fit, and, unless
    `check` is False, when a norm of z is not 1 or a similarity is outside [-1, 1]; on a GPU the check waits for it.
    Source: arXiv 2407.18134, section 3.
    """
    n = _rows(z)
    if similarity.shape != (n, n):
        raise ValueError(f"similarity is {list(similarity.shape)}, not {[n, n]}; expand a graph with G.repeat(2, 2)")
    if check:
        check_inputs(z=z, similarity=similarity)
    itself = torch.eye(n, dtype=torch.bool, device=z.device)
    targets = soft_targets(similarity, temperature=target_temperature, exclude=itself)
    return contrastive(cosine_logits(z, z, temperature=temperature), targets, excluding(itself))


def xclr_loss_from_embeddings(
    z: Tensor,
    e: Tensor,
    *,
    temperature: float = 0.1,
    target_temperature: float = 0.1,
    block: int | None = None,
    check: bool = True,
) -> Tensor:
    """X-CLR on the Gram matrix of caption embeddings, block by block: memory grows with block * n, never with n * n.

    The value and the gradient of xclr_loss(z, e @ e.T, ...). With p and s the softmaxes of xclr_loss and
    A = (p - s) / n, dL/dz = (A + A^T) z / temperature, summed over row blocks while the loss is computed.

    z: [n, d] unit rows, view 1 of all samples, then view 2. e: [n, D] unit rows in the same order, no gradient.
    block: rows per step, chosen from n when None. Returns a scalar that can be differentiated once.
    Raises ValueError when the shapes do not fit, a temperature or block is not positive or, unless `check` is False,
    a row of z or e is not a unit row; on a GPU the check waits for it.
    """
    n = _rows(z)
    if e.ndim != 2 or e.shape[0] != n:
        raise ValueError(f"e is {list(e.shape)}; it needs one caption row for each of the {n} rows of z")
    if block is None:
        block = default_block(n, z.device)
    if min(temperature, target_temperature, block) <= 0:
        raise ValueError(f"temperatures {temperature}, {target_temperature} and block {block} must be positive")
    if check:
        check_inputs(z=z, e=e)
    dtype = at_least_float32(z, e)
    wide, own = e.detach().to(dtype), torch.arange(n, device=z.device)[:, None]
    nothing = wide.new_zeros(())

    def targets(rows: slice) -> Tensor:
        similarity = torch.addmm(nothing, wide[rows], wide.T, beta=0, alpha=1 / target_temperature)
        return _softmax_(similarity.scatter_(1, own[rows], -math.inf))

    return contrast(z, z, targets, temperature=temperature, excluded=own, block=block)


def contrast(
    queries: Tensor,
    keys: Tensor,
    targets: TargetRows,
    *,
    temperature: float | Tensor,
    excluded: Tensor | None = None,
    block: int | None = None,
) -> Tensor:
    """The contrastive loss of unit queries against unit keys.

    contrastive(queries keys^T / temperature, targets, 0 but -inf in the excluded columns)

    With a block that many rows are taken at a time and the gradient is computed in the same pass: with p the softmax of
    the logits over what is not excluded and A = (p - targets) / b, it is A keys / temperature for the queries,
    A^T queries / temperature for the keys; memory grows with block * B, never with b * B. It can be differentiated
    once, in queries, keys and temperature; targets have no gradient.

    queries: [b, d]. keys: [B, d]. targets: gives the rows [r, B] of a slice. excluded: int64 [b, m], columns out of
    each row's denominator. Returns a scalar in float32 or wider, whatever autocast says.
    """
    dtype = at_least_float32(queries, keys)
    with torch.autocast(queries.device.type, enabled=False):
        if block is None:
            logits = cosine_logits(queries, keys, temperature=temperature)
            weights = None if excluded is None else without(excluded, len(keys))
            return contrastive(logits, targets(slice(0, len(queries))), weights)
        plan = _Plan(targets, excluded, min(block, len(queries)), torch.is_grad_enabled())
        tau = torch.as_tensor(temperature, dtype=dtype, device=queries.device)
        loss: Tensor = _Blockwise.apply(queries.to(dtype), keys.to(dtype), tau, plan)
    return loss


def default_block(n: int, device: torch.device) -> int:
    """Rows per step: n / BLOCKS, on a CPU BLOCK_ELEMENTS cells, at least 64 rows and at most an eighth of n."""
    rows = BLOCK_ELEMENTS // n if device.type == "cpu" else -(-n // BLOCKS)
    return max(1, min(max(rows, 64), n // 8))


@dataclass(frozen=True, slots=True)
class _Plan:
    targets: TargetRows
    excluded: Tensor | None
    block: int
    with_gradient: bool


class _Blockwise(torch.autograd.Function):
    """The loss forward, its gradients kept from the same pass: [b, d] and [B, d] are all that backward needs."""

    @staticmethod
    def forward(ctx: FunctionCtx, queries: Tensor, keys: Tensor, temperature: Tensor, plan: _Plan) -> Tensor:
        loss, *gradients = _blockwise(queries, keys, temperature, plan)
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors  # type: ignore[attr-defined]
        return *(grad_output * each for each in gradients), None


def _blockwise(queries: Tensor, keys: Tensor, temperature: Tensor, plan: _Plan) -> tuple[Tensor, ...]:
    """The loss, and its gradients with respect to queries, keys and temperature."""
    b, flipped = len(queries), keys.T
    buffer, repulsion = queries.new_empty(plan.block, len(keys)), queries.new_empty(2, b)
    attraction, by_query, by_key = queries.new_zeros(()), torch.zeros_like(queries), torch.zeros_like(keys)
    for start in range(0, b, plan.block):
        rows = slice(start, min(start + plan.block, b))
        scaled = queries[rows] / temperature
        logits = torch.mm(scaled, flipped, out=buffer[: rows.stop - start])
        attraction += _slope_(logits, plan, rows, repulsion[:, rows])
        if plan.with_gradient:
            torch.mm(logits, keys, out=by_query[rows])
            by_key.addmm_(logits.T, scaled)
    by_query /= temperature * b
    by_key /= b
    top, largest = repulsion
    loss = (top - largest.log()).mean() - attraction / b
    return loss, by_query, by_key, -torch.dot(by_query.flatten(), queries.flatten()) / temperature


def _slope_(logits: Tensor, plan: _Plan, rows: slice, repulsion: Tensor) -> Tensor:
    """Overwrite the logits [r, B] of some rows by the loss's derivative p - targets; returns their attraction.

    Of the repulsion it notes the largest logit and its p, top - log p.
    """
    targets = plan.targets(rows).to(logits.dtype)
    attraction = torch.dot(targets.flatten(), logits.flatten())  # before any logit is -inf: 0 * -inf would be NaN
    if plan.excluded is not None:
        logits.scatter_(1, plan.excluded[rows], -math.inf)
    torch.amax(logits, dim=1, out=repulsion[0])
    torch.amax(_softmax_(logits), dim=1, out=repulsion[1])
    logits.sub_(targets)
    return attraction


def _softmax_(rows: Tensor) -> Tensor:
    """Turn rows [b, n] into their softmax in place."""
    return torch.softmax(rows, dim=1, out=rows)


def _rows(z: Tensor) -> int:
    if z.ndim != 2 or z.shape[0] < 2:
        raise ValueError(f"z is {list(z.shape)}; it must be [n, d] with at least two rows")
    return z.shape[0]
