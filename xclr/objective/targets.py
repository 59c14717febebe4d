"""Targets and weights: what an anchor is drawn to, and what stands in its denominator.

Anchors are the rows a process computes, candidates the n columns they are compared with. `anchors` [b] holds each
anchor's own column among the candidates; in one process it is arange(n). Views stand as all first ones, then all
second ones, so that the other view of column a is (a + n/2) mod n.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def at_least_float32(*tensors: Tensor) -> torch.dtype:
    """The widest dtype of the tensors, float32 or wider: softmaxes in bfloat16 lose three digits."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def soft_targets(similarity: Tensor, *, temperature: float, exclude: Tensor | None = None) -> Tensor:
    """Softmax of the similarities over the candidates that are not excluded.

    s_ij = exp(similarity_ij / temperature) / sum_{k not excluded} exp(similarity_ik / temperature)

    similarity: [b, B], any dtype. exclude: bool [b, B], True = out. Returns [b, B] in float32 or wider, rows sum to 1,
    excluded cells exactly 0, without gradient. Raises ValueError when the temperature is not positive or a row has
    every candidate excluded. Source: arXiv 2407.18134, section 3.
    """
    if temperature <= 0:
        raise ValueError(f"target temperature {temperature} must be positive; 1e-4 is as good as hard targets")
    logits = similarity.detach().to(at_least_float32(similarity)) / temperature
    if exclude is None:
        return logits.softmax(dim=1)
    if exclude.all(dim=1).any():
        raise ValueError("a row of `exclude` leaves no candidate")
    return logits.masked_fill(exclude, -math.inf).softmax(dim=1)


def self_mask(anchors: Tensor, candidates: int) -> Tensor:
    """Bool [b, candidates], True at each anchor's own column; anchors: int64 [b]."""
    return torch.arange(candidates, device=anchors.device) == anchors[:, None]


def pair_targets(anchors: Tensor, candidates: int) -> Tensor:
    """One-hot [b, candidates] at the other view, column (a + n/2) mod n: SimCLR; anchors: int64 [b].

    Raises ValueError when the number of candidates is odd.
    """
    if candidates % 2:
        raise ValueError(f"{candidates} candidates are not two views of each sample")
    return identity_targets((anchors + candidates // 2) % candidates, candidates)


def class_targets(
    labels_anchor: Tensor, labels_candidates: Tensor, anchors: Tensor, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Uniform [b, n] over the other candidates of the anchor's class: SupCon's L_out.

    T_ij = 1 / |P_i| for j in P_i, the columns with labels_candidates_j = labels_anchor_i other than anchors_i.

    labels_anchor: [b]. labels_candidates: [n]. anchors: int64 [b]. An anchor whose P_i is empty, which two views of
    every sample exclude, has no targets: zeros. Source: arXiv 2004.11362, equation 2.
    """
    same = (labels_anchor[:, None] == labels_candidates) & ~self_mask(anchors, len(labels_candidates))
    return same.to(dtype) / same.sum(dim=1, keepdim=True).clamp_min(1)


def identity_targets(anchors: Tensor, candidates: int) -> Tensor:
    """One-hot [b, candidates] at each anchor's own column, the caption of its picture: CLIP; anchors: int64 [b]."""
    return F.one_hot(anchors, candidates).to(torch.float32)


def view_targets(similarity: Tensor, anchors: Tensor, *, temperature: float) -> Tensor:
    """Soft targets over both views of every sample, which share its similarity: X-CLR.

    soft_targets(similarity.repeat(1, 2), temperature, exclude = the anchors' own columns), from half the exponentials.

    similarity: [b, B] between the anchors' samples and all samples. anchors: int64 [b], columns among the 2B views.
    Returns [b, 2B], rows sum to 1, without gradient. Source: arXiv 2407.18134, section 3.
    """
    candidates = similarity.shape[1]
    logits = similarity.detach().to(at_least_float32(similarity)) / temperature
    weights = logits.sub_(logits.amax(dim=1, keepdim=True)).exp_()
    own = weights.gather(1, (anchors % candidates)[:, None])
    total = weights.sum(dim=1, keepdim=True).mul_(2).sub_(own)
    both = weights.div_(total).repeat(1, 2)
    return both.scatter_(1, anchors[:, None], 0.0)


def weighted_pair_targets(first: Tensor, second: Tensor, anchors: Tensor, *, sigma: float) -> Tensor:
    """DCLW's weights of the attraction, smaller for pairs that are near already: [b, 2B] with one cell a row.

    w_i = 2 - B exp(c_i / sigma) / sum_j exp(c_j / sigma), c_i = first_i . second_i; no gradient through w.

    first, second: [B, d] unit rows, the two views of all samples. anchors: int64 [b], columns among the 2B views.
    Source: arXiv 2110.06848, section 3.3.
    """
    cosine = (first.detach() * second.detach()).sum(dim=1) / sigma
    weights = 2 - len(cosine) * cosine.softmax(dim=0)
    return pair_targets(anchors, 2 * len(cosine)) * weights[anchors % len(cosine), None]


def match_targets(similarity: Tensor, anchors: Tensor, *, temperature: float) -> Tensor:
    """How far each candidate is a match, each by itself: 1 for the own one.

    T_ij = exp((similarity_ij - 1) / temperature), at most 1

    similarity: [b, B] in [-1, 1]. anchors: int64 [b]. Returns [b, B] without gradient. X-CLR's weights before they are
    divided by their sum: a small temperature leaves equal captions alone.
    """
    weights = ((similarity.detach().to(at_least_float32(similarity)) - 1) / temperature).exp().clamp_max(1)
    return weights.scatter(1, anchors[:, None], 1.0)


def weighted_targets(similarity: Tensor) -> Tensor:
    """CWCL: every candidate attracts in proportion to its similarity in the frozen modality.

    T_ij = w_ij / sum_k w_ik, w = (similarity + 1) / 2

    similarity: [b, B] in [-1, 1]. Returns [b, B], rows sum to 1, without gradient; a row that is -1 throughout, which
    leaves out the anchor itself, has no targets: zeros. Source: arXiv 2309.14580, equation 3.
    """
    weights = (similarity.detach().to(at_least_float32(similarity)) + 1) / 2
    return weights / weights.sum(dim=1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)


def softened_targets(similarity: Tensor, anchors: Tensor, *, temperature: float | Tensor, mix: float) -> Tensor:
    """SoftCLIP: the own column, softened by the anchor's similarities inside its own modality.

    T_ij = (1 - mix) [j = anchor_i] + mix exp(similarity_ij / temperature) / sum_k exp(similarity_ik / temperature)

    similarity: [b, B]. anchors: int64 [b]. Returns [b, B], rows sum to 1, without gradient.
    Source: arXiv 2303.17561, section 3.2.
    """
    logits = similarity.detach().to(at_least_float32(similarity)) / torch.as_tensor(temperature).detach()
    own = anchors[:, None]
    soft = logits.softmax(dim=1).mul_(mix)
    return soft.scatter_add_(1, own, torch.full_like(own, 1 - mix, dtype=soft.dtype))


def excluding(mask: Tensor) -> Tensor:
    """Log-weights of a denominator without some cells: -inf where the mask is True, else 0."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(mask, -math.inf)


def without(columns: Tensor, candidates: int) -> Tensor:
    """Log-weights [b, candidates] of a denominator without some columns a row; columns: int64 [b, m]."""
    return torch.zeros(len(columns), candidates, device=columns.device).scatter_(1, columns, -math.inf)


def itself(anchors: Tensor, candidates: int) -> Tensor:
    """The column [b, 1] that SimCLR, SupCon and X-CLR leave out of the denominator; anchors: int64 [b]."""
    return anchors[:, None]


def itself_and_pair(anchors: Tensor, candidates: int) -> Tensor:
    """The columns [b, 2] that DCL leaves out of the denominator: the anchor and its other view; anchors: int64 [b].

    Raises ValueError when there are fewer than two samples, which leaves no negative. Source: arXiv 2110.06848.
    """
    if candidates < 4:
        raise ValueError(f"{candidates} candidates leave DCL no negative; it needs two views of two samples")
    return torch.stack((anchors, (anchors + candidates // 2) % candidates), dim=1)
