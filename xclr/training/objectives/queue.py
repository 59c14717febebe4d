"""Objectives between views of pictures and a queue of keys, which a running average of the network makes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xclr.objective import (
    Draws,
    Queued,
    anchor_index,
    gather_rows,
    gather_views,
    mix_negatives,
    moco_loss,
    own_and_queue,
    ressl_loss,
    with_mixed,
    world_and_rank,
)
from xclr.recipe import MoCHiConfig, MoCoConfig, QueueConfig, ReSSLConfig
from xclr.training.captions import look_up_pictures
from xclr.training.model import projector
from xclr.training.objectives.materials import Averaged, Averaging, Look, Looked, Materials, Objective, StepLoss
from xclr.training.objectives.report import spread_report
from xclr.training.objectives.towers import unit
from xclr.training.objectives.views import other_view

NOBODY = -1


class QueueLoss(NamedTuple):
    """A loss, how many keys each query was compared with, and the targets' mean entropy."""

    loss: Tensor
    compared: Tensor  # [2b]
    entropy: Tensor


LossOfQueue = Callable[[Queued], QueueLoss]


class QueueObjective(Objective):
    """Every view is a query; its key is the average's of the other view, and the queue holds the keys of before.

    The queue begins with random directions, as MoCo's does; the newest keys come first. Keys of a query's own picture,
    which a batch of before may have left there, are no negatives of it.
    """

    queue: Tensor
    pictures: Tensor

    def __init__(self, config: QueueConfig, materials: Materials, loss: LossOfQueue, stages: float = 0.0) -> None:
        super().__init__()
        self.head = projector(materials.features, materials.config)
        self.averaging = Averaging(self.head, config.momentum, stages > 0)
        self.look = Look(graph=look_up_pictures(materials.inputs["captions"]))
        self.temperature, self.loss, self.stages = config.temperature, loss, stages
        self.register_buffer("queue", unit(torch.randn(config.queue, materials.config.projector_out)))
        self.register_buffer("pictures", torch.full((config.queue,), NOBODY))

    def forward(self, features: Tensor, rows: Tensor, looked: Looked, averaged: Averaged) -> StepLoss:
        """The loss of this rank's views; their keys, and those of all ranks, enter the queue afterwards."""
        assert looked.graph is not None
        z, pictures = unit(self.head(features)), looked.graph
        with torch.autocast(z.device.type, enabled=False):
            own = pictures.repeat(2)[:, None] == self.pictures
            found = self.loss(Queued(z, other_view(averaged.z), self.queue.clone(), own))
            self._enqueue(gather_views(averaged.z), gather_rows(pictures).repeat(2))
            loss, apart = found.loss, None
            if averaged.apart is not None:
                loss, apart = loss + self.stages * averaged.apart, averaged.apart.detach()
        return StepLoss(loss, partial(self._report, z, found, apart), partial(self._chance, found.compared, apart))

    @torch.no_grad()
    def _enqueue(self, keys: Tensor, pictures: Tensor) -> None:
        self.queue.copy_(torch.cat([keys, self.queue])[: len(self.queue)])
        self.pictures.copy_(torch.cat([pictures, self.pictures])[: len(self.queue)])

    @torch.no_grad()
    def _report(self, z: Tensor, found: QueueLoss, apart: Tensor | None) -> dict[str, Tensor]:
        told = {"temperature": z.new_tensor(self.temperature), "target_entropy": found.entropy}
        return told | spread_report(*z.detach().chunk(2)) | ({} if apart is None else {"stages_apart": apart})

    @torch.no_grad()
    def _chance(self, compared: Tensor, apart: Tensor | None) -> Tensor:
        """All keys are as near."""
        chance = compared.to(torch.float32).log().mean()
        return chance if apart is None else chance + self.stages * apart


def moco(config: MoCoConfig) -> LossOfQueue:
    """Cross-entropy of the own key."""

    def loss(queued: Queued) -> QueueLoss:
        return _of_own_key(own_and_queue(queued, temperature=config.temperature))

    return loss


class Mixing(nn.Module):
    """The same with mixed negatives, after a share of a training's steps."""

    seen: Tensor  # steps

    def __init__(self, config: MoCHiConfig, steps: int) -> None:
        super().__init__()
        self.config, self.first = config, round(config.mix_after * steps)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, queued: Queued) -> QueueLoss:
        """Cross-entropy of the own key; what is mixed is drawn as one process would for the queries of all ranks."""
        config, queries = self.config, queued.queries
        anchors = anchor_index(len(queries) // 2, device=queries.device)
        every = world_and_rank()[0] * len(queries)
        draws = Draws.make(every, config.hardest, config.mixed, config.mixed_with_query, queries.device).of(anchors)
        mixed = mix_negatives(queued, hardest=config.hardest, draws=draws)
        counts = self.seen >= self.first
        self.seen += 1
        logits = own_and_queue(queued, temperature=config.temperature)
        return _of_own_key(with_mixed(logits, queries, mixed, temperature=config.temperature, counts=counts))


def ressl(config: ReSSLConfig) -> LossOfQueue:
    """Cross-entropy between how near query and key find the queue."""

    def loss(queued: Queued) -> QueueLoss:
        found, targets = ressl_loss(
            queued, temperature=config.temperature, target_temperature=config.target_temperature
        )
        return QueueLoss(found, (~queued.own).sum(1), torch.special.entr(targets).sum(1).mean())

    return loss


def _of_own_key(logits: Tensor) -> QueueLoss:
    return QueueLoss(moco_loss(logits), logits.detach().isfinite().sum(1), logits.new_zeros(()))
