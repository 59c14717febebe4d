"""Losses that are no softmax over candidates: of pairs by themselves, of distances, of orders of pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from xclr.objective.loss import TargetRows, cosine_logits

KERNEL = 2.0  # of uniformity, exp(-KERNEL d^2)


class Opposed(NamedTuple):
    """Anchors, each with a positive, among keys of which all that are not excluded are its negatives."""

    queries: Tensor  # [b, d] unit rows
    keys: Tensor  # [B, d] unit rows
    positive: Tensor  # int64 [b], columns
    excluded: Tensor  # int64 [b, m], columns; the positive is among them

    def part(self, rows: slice) -> Opposed:
        """Some anchors."""
        return self._replace(queries=self.queries[rows], positive=self.positive[rows], excluded=self.excluded[rows])

    def cosines(self) -> tuple[Tensor, Tensor, Tensor]:
        """With the positives [b, 1] and with all keys [b, B], and the weights of these in a mean over negatives."""
        cosines = cosine_logits(self.queries, self.keys, temperature=1.0)
        counted = torch.ones_like(cosines).scatter(1, self.excluded, 0.0) / (len(self.keys) - self.excluded.shape[1])
        return cosines.gather(1, self.positive[:, None]), cosines, counted


def by_rows(make: Callable[[slice], Tensor], rows: int, block: int | None) -> Tensor:
    """make(slice) of all rows, one after the other; with a block so many at a time, computed again for the gradient.

    Memory grows with block * B then, never with rows * B.
    """
    if block is None:
        return make(slice(0, rows))
    parts = [slice(start, min(start + block, rows)) for start in range(0, rows, block)]
    return torch.cat([checkpoint(make, part, use_reentrant=False) for part in parts])


def sigmoid_loss(
    queries: Tensor, keys: Tensor, targets: TargetRows, *, scale: Tensor, bias: Tensor, block: int | None = None
) -> Tensor:
    """Every pair by itself is a match or none.

    mean_i sum_j BCE(sigmoid(scale queries_i . keys_j + bias), T_ij)

    With T_ij = 1 for i's own column and 0 elsewhere it is SigLIP. queries: [b, d] and keys: [B, d] unit rows. targets:
    give [r, B] in [0, 1] of a slice. Returns a scalar. Source: arXiv 2303.15343, section 3.
    """

    def make(part: slice) -> Tensor:
        logits = cosine_logits(queries[part], keys, temperature=1 / scale) + bias
        return F.binary_cross_entropy_with_logits(logits, targets(part).to(logits.dtype), reduction="none").sum(1)

    return by_rows(make, len(queries), block).mean()


def jensen_shannon_loss(matched: Tensor, other: Tensor) -> Tensor:
    """CLIP-Lite: one match and one other pair for each picture.

    mean_i [ softplus(-matched_i) + softplus(other_i) ], a bound on the Jensen-Shannon mutual information.

    matched, other: [b], scores of pairs. 2 log 2 where all are 0. Source: arXiv 2112.07133, equation 2.
    """
    return (F.softplus(-matched) + F.softplus(other)).mean()


def squared_distances(queries: Tensor, keys: Tensor) -> Tensor:
    """|queries_i - keys_j|^2 = 2 - 2 queries_i . keys_j of unit rows, [b, B]."""
    return 2 - 2 * cosine_logits(queries, keys, temperature=1.0)


def attract_and_repel(pairs: Opposed, *, attraction: float, repulsion: float, block: int | None = None) -> Tensor:
    """CACR with one positive: it attracts, and near negatives repel more than far ones.

    mean_i [ attraction d(i, i+) - repulsion sum_j softmax_j(-d(i, j)) d(i, j) ], j over the negatives, d the squared
    distance of unit rows; the weights have a gradient too. Returns a scalar, 0 where all rows are the same.
    Source: arXiv 2105.03746, equations 6 and 7, with t- = 1; the weight of a single positive is 1.
    """

    def make(rows: slice) -> Tensor:
        part = pairs.part(rows)
        distance = squared_distances(part.queries, part.keys)
        near = (-distance).scatter(1, part.excluded, -math.inf).softmax(dim=1)
        pulled = distance.gather(1, part.positive[:, None])[:, 0]
        return attraction * pulled - repulsion * (near * distance).sum(dim=1)

    return by_rows(make, len(pairs.queries), block).mean()


def mann_whitney_loss(pairs: Opposed, *, temperature: float, block: int | None = None) -> Tensor:
    """How often a negative is nearer than the positive, smoothly: an estimate of 1 - AUC.

    mean_i mean_j softplus((s(i, j) - s(i, i+)) / temperature), j over the negatives, s cosines. Returns a scalar, log 2
    where all rows are the same. Source: the U of Mann and Whitney, its steps replaced by the logistic loss.
    """

    def make(rows: slice) -> Tensor:
        matched, others, counted = pairs.part(rows).cosines()
        return (counted * F.softplus((others - matched) / temperature)).sum(dim=1)

    return by_rows(make, len(pairs.queries), block).mean()


def auc_margin_loss(
    pairs: Opposed, *, centres: Tensor, dual: Tensor, margin: float, block: int | None = None
) -> Tensor:
    """The area under the ROC curve, by a margin that a dual number enforces.

    mean_i [ (s+ - a)^2 + mean_j (s- - b)^2 + 2 dual (margin + mean_j s- - s+) ] - dual^2, which is minimised in all but
    `dual`, and maximised in it: its gradient has the other sign. s+ and s- are cosines with positives and negatives.

    centres: [2], a and b. dual: a scalar, at least 0. Returns a scalar.
    Source: arXiv 2012.03173, equation 4; without labels it is AUC-CL's (ICLR 2024).
    """
    rising = 2 * dual.detach() - dual  # the value of dual, and its gradient reversed

    def make(rows: slice) -> Tensor:
        matched, others, counted = pairs.part(rows).cosines()
        near, far = matched[:, 0], (counted * others).sum(dim=1)
        spread = (near - centres[0]).square() + (counted * (others - centres[1]).square()).sum(dim=1)
        return spread + 2 * rising * (margin + far - near)

    return by_rows(make, len(pairs.queries), block).mean() - rising.square()


def alignment(pictures: Tensor, captions: Tensor) -> Tensor:
    """mean_i |x_i - y_i|^2 of unit rows [b, d]. Source: arXiv 2405.18570, section 4."""
    return (pictures - captions).square().sum(dim=1).mean()


def uniformity(rows: Tensor, block: int | None = None) -> Tensor:
    """log mean_{i != j} exp(-2 |z_i - z_j|^2) of unit rows [n, d]. Source: arXiv 2005.10242, equation 6."""
    return cross_uniformity(rows, rows, block)


def cross_uniformity(pictures: Tensor, captions: Tensor, block: int | None = None) -> Tensor:
    """log mean_{i != j} exp(-2 |x_i - y_j|^2) of unit rows [n, d], n >= 2. Source: arXiv 2405.18570, section 4."""
    own = torch.arange(len(pictures), device=pictures.device)[:, None]

    def make(part: slice) -> Tensor:
        exponents = -KERNEL * squared_distances(pictures[part], captions)
        return exponents.scatter(1, own[part], -math.inf).logsumexp(dim=1)

    return by_rows(make, len(own), block).logsumexp(dim=0) - math.log(len(own) * (len(own) - 1))


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """Assignments of rows to prototypes that use all of these equally: [n, K], rows sum to 1, columns to about n / K.

    exp(scores / epsilon), its columns and rows normalised in turn. scores: [n, K], cosines. No gradient.
    Source: arXiv 2006.09882, section 3.1.
    """
    logits = scores / epsilon
    for _ in range(iterations):
        logits = logits - logits.logsumexp(dim=0, keepdim=True)
        logits = logits - logits.logsumexp(dim=1, keepdim=True)
    return logits.exp()
