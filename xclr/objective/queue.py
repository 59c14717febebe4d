"""Queries against keys of earlier batches, which a queue holds, and negatives that are mixed of those."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from xclr.objective.loss import contrastive, cosine_logits


class Queued(NamedTuple):
    """Queries, their own keys and those of a queue; only the queries have a gradient."""

    queries: Tensor  # [b, d] unit rows
    keys: Tensor  # [b, d] unit rows, each of the other view of the query's picture
    queue: Tensor  # [K, d] unit rows
    own: Tensor  # bool [b, K], True where the queue holds a key of the query's own picture: no negative


class Columns(NamedTuple):
    """What queries are compared with: logits, and 0 or -inf for what is out of the denominator, [b, n] each."""

    logits: Tensor
    log_weights: Tensor

    def compared(self) -> Tensor:
        """How many of them are in each query's denominator, [b]."""
        return self.log_weights.isfinite().sum(1)


class Draws(NamedTuple):
    """What negatives are mixed of: places among a query's hardest negatives, and shares from 0 to 1."""

    first: Tensor  # int64 [b, s]
    second: Tensor  # int64 [b, s]
    share: Tensor  # [b, s] of the first
    third: Tensor  # int64 [b, t], mixed with the query itself
    query_share: Tensor  # [b, t], half of which is the query's

    @classmethod
    def make(cls, b: int, among: int, pairs: int, with_query: int, device: torch.device) -> Draws:
        """Uniform ones, from torch's generator."""
        first, second, third = (torch.randint(among, (b, n), device=device) for n in (pairs, pairs, with_query))
        share, query_share = (torch.rand(b, n, device=device) for n in (pairs, with_query))
        return cls(first, second, share, third, query_share)

    def of(self, rows: Tensor) -> Draws:
        """Those of some queries; rows: int64 [n]."""
        return Draws(*(each[rows] for each in self))


def own_and_queue(queued: Queued, *, temperature: float) -> Columns:
    """Each query's own key, and then the queue's, among which those of its own picture are out of the denominator."""
    own = (queued.queries * queued.keys).sum(1, keepdim=True) / temperature
    logits = torch.cat([own, cosine_logits(queued.queries, queued.queue, temperature=temperature)], 1)
    out = F.pad(queued.own, (1, 0))
    return Columns(logits, torch.zeros_like(logits).masked_fill(out, -math.inf))


def moco_loss(columns: Columns) -> Tensor:
    """Cross-entropy of the first column, the own key, among all that are in the denominator.

    -mean_i log( exp(l_i0) / sum_j exp(l_ij) ), l_ij = q_i . k_j / tau

    Source: arXiv 1911.05722, equation 1.
    """
    targets = torch.zeros_like(columns.logits)
    targets[:, 0] = 1
    return contrastive(columns.logits, targets, columns.log_weights)


def ressl_loss(queued: Queued, *, temperature: float, target_temperature: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy between how alike a key and its query are to the queue's keys, and the targets [b, K].

    -mean_i sum_j t_ij log p_ij;  t_i = softmax(k_i . n_j / target_temperature), p_i = softmax(q_i . n_j / temperature),
    over the keys n_j of other pictures; no gradient through t. Source: arXiv 2107.09282, equations 4 to 6.
    """
    alike = cosine_logits(queued.keys, queued.queue, temperature=target_temperature)
    targets = alike.masked_fill(queued.own, -math.inf).softmax(1)
    logits = cosine_logits(queued.queries, queued.queue, temperature=temperature)
    return contrastive(logits, targets, torch.zeros_like(logits).masked_fill(queued.own, -math.inf)), targets


@torch.no_grad()
def mix_negatives(queued: Queued, *, hardest: int, draws: Draws) -> Tensor:
    """Unit rows [b, s + t, d] between negatives of a query, and between it and negatives, among its `hardest`.

    h = (a n_i + (1 - a) n_j) / |.|, a from 0 to 1;  h' = (c q + (1 - c) n_k) / |.|, c from 0 to 1/2

    The hardest negatives are the queue's nearest keys of other pictures. Source: arXiv 2010.01028, equations 3 and 4.
    """
    alike = (queued.queries @ queued.queue.T).masked_fill(queued.own, -math.inf)
    near = queued.queue[alike.topk(hardest, dim=1).indices]  # [b, hardest, d]

    def at(places: Tensor) -> Tensor:
        return near.take_along_dim(places[:, :, None], 1)

    share, query_share = draws.share[:, :, None], draws.query_share[:, :, None] / 2
    between = share * at(draws.first) + (1 - share) * at(draws.second)
    beside = query_share * queued.queries[:, None] + (1 - query_share) * at(draws.third)
    return F.normalize(torch.cat([between, beside], 1), dim=2)


def with_mixed(columns: Columns, queries: Tensor, mixed: Tensor, *, temperature: float, counts: Tensor) -> Columns:
    """Columns, and those of mixed negatives [b, m, d]; `counts`, a scalar bool: they are in the denominator."""
    logits = torch.einsum("bd,bmd->bm", queries, mixed) / temperature
    weights = torch.zeros_like(logits).masked_fill(~counts, -math.inf)
    return Columns(torch.cat([columns.logits, logits], 1), torch.cat([columns.log_weights, weights], 1))
