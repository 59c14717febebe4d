"""Objectives between views of pictures and a queue of keys, which a running average of the network makes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

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
)
from xclr.recipe import MoCHiConfig, MoCoConfig, QueueConfig, ReSSLConfig
from xclr.training.model import projector
from xclr.training.objectives.materials import Averaged, Averaging, Looked, Materials, Objective, StepLoss
from xclr.training.objectives.report import spread_report
from xclr.training.objectives.towers import unit
from xclr.training.objectives.views import other_view

NO_ROW = -1


class Step(NamedTuple):
    """What a loss on a queue is computed from."""

    queued: Queued
    anchors: Tensor  # int64 [2b] places of the queries among those of all ranks, of which there are
    views: int
    number: Tensor  # of the step, a scalar from 0


class QueueLoss(NamedTuple):
    """A loss, how many keys each query was compared with, and the targets' mean entropy."""

    loss: Tensor
    compared: Tensor
    entropy: Tensor


LossOfQueue = Callable[[Step], QueueLoss]


class QueueObjective(Objective):
    """Every view is a query; its key is the average's of the other view, and the queue holds the keys of before.

    The queue begins with random directions, as MoCo's does; the newest keys come first. Keys of a query's own picture,
    which a batch of before may have left there, are no negatives of it.
    """

    queue: Tensor
    queue_rows: Tensor
    steps: Tensor

    def __init__(self, config: QueueConfig, materials: Materials, loss: LossOfQueue, stages: float = 0.0) -> None:
        super().__init__()
        self.head = projector(materials.features, materials.config)
        self.average = Averaging(config.momentum, stages > 0)
        self.temperature, self.loss, self.stages = config.temperature, loss, stages
        self.register_buffer("queue", unit(torch.randn(config.queue, materials.config.projector_out)))
        self.register_buffer("queue_rows", torch.full((config.queue,), NO_ROW))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor, rows: Tensor, looked: Looked, averaged: Averaged) -> StepLoss:
        """The loss of this rank's views; their keys, and those of all ranks, enter the queue afterwards."""
        z = unit(self.head(features))
        with torch.autocast(z.device.type, enabled=False):
            own = rows.repeat(2)[:, None] == self.queue_rows
            queued = Queued(z, other_view(averaged.z), self.queue, own)
            anchors, keys = anchor_index(len(rows), device=rows.device), gather_views(averaged.z)
            found = self.loss(Step(queued, anchors, len(keys), self.steps))
            self._enqueue(keys, gather_rows(rows).repeat(2))
            loss, apart = found.loss, None
            if averaged.apart is not None:
                loss, apart = loss + self.stages * averaged.apart, averaged.apart.detach()
        return StepLoss(loss, partial(self._report, z, found, apart), partial(self._chance, found.compared, apart))

    @torch.no_grad()
    def _enqueue(self, keys: Tensor, rows: Tensor) -> None:
        self.queue = torch.cat([keys, self.queue])[: len(self.queue)]
        self.queue_rows = torch.cat([rows, self.queue_rows])[: len(self.queue)]
        self.steps = self.steps + 1

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

    def loss(step: Step) -> QueueLoss:
        columns = own_and_queue(step.queued, temperature=config.temperature)
        return QueueLoss(moco_loss(columns), columns.compared(), step.queued.queries.new_zeros(()))

    return loss


def mochi(config: MoCHiConfig, steps: int) -> LossOfQueue:
    """The same with mixed negatives, after a share of so many steps; each rank mixes as one process would."""
    first = round(config.mix_after * steps)

    def loss(step: Step) -> QueueLoss:
        queued, device = step.queued, step.anchors.device
        draws = Draws.make(step.views, config.hardest, config.mixed, config.mixed_with_query, device).of(step.anchors)
        mixed = mix_negatives(queued, hardest=config.hardest, draws=draws)
        columns = own_and_queue(queued, temperature=config.temperature)
        counts = step.number >= first
        columns = with_mixed(columns, queued.queries, mixed, temperature=config.temperature, counts=counts)
        return QueueLoss(moco_loss(columns), columns.compared(), queued.queries.new_zeros(()))

    return loss


def ressl(config: ReSSLConfig) -> LossOfQueue:
    """Cross-entropy between how near query and key find the queue."""

    def loss(step: Step) -> QueueLoss:
        found, targets = ressl_loss(
            step.queued, temperature=config.temperature, target_temperature=config.target_temperature
        )
        return QueueLoss(found, (~step.queued.own).sum(1), torch.special.entr(targets).sum(1).mean())

    return loss
