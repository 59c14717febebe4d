"""Objectives between two views of pictures that are no softmax over the other views."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xclr.objective import (
    Opposed,
    anchor_index,
    attract_and_repel,
    auc_margin_loss,
    contrast,
    gather_views,
    itself_and_pair,
    mann_whitney_loss,
    sinkhorn,
)
from xclr.recipe import AUCConfig, CACRConfig, MannWhitneyConfig, SwAVConfig
from xclr.training.model import projector
from xclr.training.objectives.materials import Looked, Materials, Objective, StepLoss
from xclr.training.objectives.report import spread_report
from xclr.training.objectives.towers import block_of, unit
from xclr.training.objectives.views import Views


class ViewLoss(NamedTuple):
    """A loss of the views that is no softmax over candidates, its value for constant features, and what is shown."""

    loss: Tensor
    chance: float | Tensor
    report: dict[str, Tensor]


LossOfViews = Callable[[Views, int | None], ViewLoss]  # of views, so many rows at a time


class PairwiseObjective(Objective):
    """A loss of the views; it may have parameters of its own."""

    def __init__(self, head: nn.Module, loss: LossOfViews, blockwise_from: int) -> None:
        super().__init__()
        self.head, self.loss = head, loss
        self.blockwise_from = blockwise_from

    def forward(self, features: Tensor, rows: Tensor, looked: Looked) -> StepLoss:
        """The loss of this rank's views among those of all ranks."""
        z = unit(self.head(features))
        with torch.autocast(z.device.type, enabled=False):
            candidates = gather_views(z)
            views = Views(z, candidates, None, None, anchor_index(len(rows), device=rows.device))
            found = self.loss(views, block_of(candidates, len(candidates), self.blockwise_from))
        return StepLoss(found.loss, partial(_with_spread, found.report, z), lambda: found.chance)


@torch.no_grad()
def _with_spread(report: dict[str, Tensor], z: Tensor) -> dict[str, Tensor]:
    return report | spread_report(*z.detach().chunk(2))


def opposed(views: Views) -> Opposed:
    """Each view with the other one of its picture, among those of all other pictures."""
    candidates = len(views.candidates)
    positive = (views.anchors + candidates // 2) % candidates
    return Opposed(views.z, views.candidates, positive, itself_and_pair(views.anchors, candidates))


def cacr(config: CACRConfig) -> LossOfViews:
    """Attraction and repulsion by distance; constant features have 0."""

    def loss(views: Views, block: int | None) -> ViewLoss:
        pairs = opposed(views)
        found = attract_and_repel(pairs, attraction=config.attraction, repulsion=config.repulsion, block=block)
        return ViewLoss(found, 0.0, {})

    return loss


def mann_whitney(config: MannWhitneyConfig) -> LossOfViews:
    """1 - AUC, smoothly; constant features have log 2."""

    def loss(views: Views, block: int | None) -> ViewLoss:
        found = mann_whitney_loss(opposed(views), temperature=config.temperature, block=block)
        return ViewLoss(found, math.log(2), {})

    return loss


class AUCMargin(nn.Module):
    """The margin loss of the AUC, with its centres and its dual number, which rises where the others fall."""

    def __init__(self, config: AUCConfig) -> None:
        super().__init__()
        self.margin = config.margin
        self.centres, self.dual = nn.Parameter(torch.tensor([1.0, 0.0])), nn.Parameter(torch.tensor(1.0))

    def forward(self, views: Views, block: int | None) -> ViewLoss:
        """The loss; of constant features all cosines are 1."""
        with torch.no_grad():  # the parameter itself, so that its gradient can bring it back again
            self.dual.clamp_(min=0)
        found = auc_margin_loss(opposed(views), centres=self.centres, dual=self.dual, margin=self.margin, block=block)
        dual = self.dual.detach()
        chance = (1 - self.centres.detach()).square().sum() + 2 * dual * self.margin - dual.square()
        return ViewLoss(found, chance, {"dual": dual})


class Prototypes(nn.Module):
    """SwAV's loss: the prototypes that one view is assigned to are the targets of the other."""

    def __init__(self, config: SwAVConfig, width: int) -> None:
        super().__init__()
        self.temperature, self.epsilon, self.iterations = config.temperature, config.epsilon, config.iterations
        self.prototypes = nn.Parameter(unit(torch.randn(config.prototypes, width)))

    def forward(self, views: Views, block: int | None) -> ViewLoss:
        """Cross-entropy; constant features are assigned to all prototypes equally."""
        prototypes = unit(self.prototypes)
        first, second = views.candidates.detach().chunk(2)
        assigned = torch.cat([
            sinkhorn(each @ prototypes.detach().T, epsilon=self.epsilon, iterations=self.iterations)
            for each in (second, first)
        ])[views.anchors]  # fmt: skip
        loss = contrast(views.z, prototypes, lambda part: assigned[part], temperature=self.temperature, block=block)
        logits = (views.z.detach() @ prototypes.detach().T / self.temperature).mean(0)
        entropy = torch.special.entr(assigned).sum(1).mean()
        return ViewLoss(loss, logits.logsumexp(0) - logits.mean(), {"target_entropy": entropy})


def pairwise_objective(materials: Materials, loss: LossOfViews) -> Objective:
    head = projector(materials.features, materials.config)
    return PairwiseObjective(head, loss, materials.config.blockwise_from)
