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


def own_and_queue(queued: Queued, *, temperature: float) -> Tensor:
    """Logits [b, 1 + K] of each query's own key, and then of the queue's; -inf for those of its own picture."""
    own = (queued.queries * queued.keys).sum(1, keepdim=True) / temperature
    return torch.cat([own, _others(queued.queries, queued, temperature)], 1)


def moco_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of the first column, the own key; -inf is out of the denominator.

    -mean_i log( exp(l_i0) / sum_j exp(l_ij) ), l_ij = q_i . k_j / tau

    It is `contrastive` with one-hot targets, which no matrix holds here: a queue is long. Source: arXiv 1911.05722,
    equation 1.
    """
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


def ressl_loss(queued: Queued, *, temperature: float, target_temperature: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy between how alike a key and its query are to the queue's keys, and the targets [b, K].

    -mean_i sum_j t_ij log p_ij;  t_i = softmax(k_i . n_j / target_temperature), p_i = softmax(q_i . n_j / temperature),
    over the keys n_j of other pictures; no gradient through t. Source: arXiv 2107.09282.
    """
    targets = _others(queued.keys, queued, target_temperature).softmax(1)
    return contrastive(_others(queued.queries, queued, temperature), targets), targets


@torch.no_grad()
def mix_negatives(queued: Queued, *, hardest: int, draws: Draws) -> Tensor:
    """Unit rows [b, s + t, d] between negatives of a query, and between it and negatives, among its `hardest`.

    h = (a n_i + (1 - a) n_j) / |.|, a from 0 to 1;  h' = (c q + (1 - c) n_k) / |.|, c from 0 to 1/2

    The hardest negatives are the queue's nearest keys of other pictures. Source: arXiv 2010.01028.
    """
    near = _others(queued.queries, queued, 1.0).topk(hardest, dim=1).indices

    def at(places: Tensor) -> Tensor:
        return queued.queue[near.gather(1, places)]

    share, query_share = draws.share[:, :, None], draws.query_share[:, :, None] / 2
    between = share * at(draws.first) + (1 - share) * at(draws.second)
    beside = query_share * queued.queries[:, None] + (1 - query_share) * at(draws.third)
    return F.normalize(torch.cat([between, beside], 1), dim=2)


def with_mixed(logits: Tensor, queries: Tensor, mixed: Tensor, *, temperature: float, counts: Tensor) -> Tensor:
    """Logits, and those of mixed negatives [b, m, d]; -inf unless `counts`, a scalar bool."""
    further = torch.einsum("bd,bmd->bm", queries, mixed) / temperature
    return torch.cat([logits, further.masked_fill(~counts, -math.inf)], 1)


def _others(rows: Tensor, queued: Queued, temperature: float) -> Tensor:
    """Logits [b, K] of rows and the queue's keys, -inf for those of a row's own picture."""
    return cosine_logits(rows, queued.queue, temperature=temperature).masked_fill(queued.own, -math.inf)
