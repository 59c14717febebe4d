"""Objectives between pictures and their captions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from xclr.objective import TargetRows, contrast, gather_rows, identity_targets, retrieve
from xclr.recipe import CLOOBConfig, LearnedScaleConfig
from xclr.training.objectives.materials import Look, Looked, Lookup, StepLoss
from xclr.training.objectives.report import spread_report, target_report
from xclr.training.objectives.scale import LearnedScale
from xclr.training.objectives.towers import TextPairs, Towers

PairTargets = Callable[
    [TextPairs], tuple[TargetRows, TargetRows]
]  # of pictures over captions, of captions over pictures


class PairObjective(nn.Module):
    """Image-text contrast in both directions, each view by itself; the scale is learned and limited."""

    def __init__(
        self, towers: Towers, config: LearnedScaleConfig, targets: PairTargets, graph: Lookup | None = None
    ) -> None:
        super().__init__()
        self.towers, self.targets, self.look = towers, targets, Look(towers.texts, graph)
        self.scale = LearnedScale(config)

    def forward(self, features: Tensor, rows: Tensor, looked: Looked) -> StepLoss:
        """Mean over views and directions of the contrastive loss between pictures and captions."""
        temperature = 1 / self.scale()
        views = self.towers(features, looked, temperature)
        targets = [self.targets(pairs) for pairs in views]
        losses = [self._loss(*each) for each in zip(views, targets, strict=True)]
        chance = math.log(len(views[0].all_captions))
        return StepLoss(torch.stack(losses).mean(), partial(pair_report, views[0], targets[0]), chance)

    def _loss(self, pairs: TextPairs, targets: tuple[TargetRows, TargetRows]) -> Tensor:
        block = self.towers.block(pairs.all_captions)
        directions = ((pairs.pictures, pairs.all_captions), (pairs.captions, pairs.all_pictures))
        losses = [
            contrast(anchors, candidates, rows, temperature=pairs.temperature, block=block)
            for (anchors, candidates), rows in zip(directions, targets, strict=True)
        ]
        return (losses[0] + losses[1]) / 2


class CLOOBObjective(nn.Module):
    """InfoLOOB in both directions on what Hopfield networks retrieve from the batch's pictures and captions."""

    def __init__(self, towers: Towers, config: CLOOBConfig) -> None:
        super().__init__()
        self.towers, self.look = towers, Look(towers.texts)
        self.temperature, self.hopfield_scale = 1 / config.scale, config.hopfield_scale

    def forward(self, features: Tensor, rows: Tensor, looked: Looked) -> StepLoss:
        """tau (InfoLOOB(U_x, U_y) + InfoLOOB(V_y, V_x)), mean over views; U from stored pictures x, V from captions y.

        Source: arXiv 2110.11316, equations 5 to 7.
        """
        views = self.towers(features, looked, self.temperature)
        losses = [self._loss(pairs) for pairs in views]
        chance = 2 * self.temperature * math.log(len(views[0].all_captions) - 1)
        return StepLoss(torch.stack(losses).mean(), partial(pair_report, views[0], own_captions(views[0])), chance)

    def _loss(self, pairs: TextPairs) -> Tensor:
        from_pictures = [self._retrieve(each, pairs.all_pictures) for each in (pairs.pictures, pairs.captions)]
        from_captions = [self._retrieve(each, pairs.all_captions) for each in (pairs.captions, pairs.pictures)]
        losses = [
            contrast(
                anchors,
                gather_rows(candidates),
                identity_rows(pairs.own, len(pairs.all_captions)),
                temperature=self.temperature,
                excluded=pairs.own[:, None],
                block=self.towers.block(pairs.all_captions),
            )
            for anchors, candidates in (from_pictures, from_captions)
        ]
        return self.temperature * (losses[0] + losses[1])

    def _retrieve(self, queries: Tensor, stored: Tensor) -> Tensor:
        return retrieve(queries, stored, scale=self.hopfield_scale)


def identity_rows(own: Tensor, candidates: int) -> TargetRows:
    """One-hot targets at the own columns."""
    return lambda part: identity_targets(own[part], candidates)


def smoothed(rows: TargetRows, share: float) -> TargetRows:
    """(1 - share) q + share / B: targets q [k, B] of which a share is spread over the whole batch (label smoothing)."""

    def mixed(part: slice) -> Tensor:
        targets = rows(part)
        return (1 - share) * targets + share / targets.shape[1]

    return mixed


def own_captions(pairs: TextPairs) -> tuple[TargetRows, TargetRows]:
    rows = identity_rows(pairs.own, len(pairs.all_captions))
    return rows, rows


def towers_of(objective: nn.Module | None) -> Towers | None:
    """The towers of an objective that has captions."""
    return objective.towers if isinstance(objective, PairObjective | CLOOBObjective) else None


@torch.no_grad()
def pair_report(pairs: TextPairs, targets: tuple[TargetRows, TargetRows]) -> dict[str, Tensor]:
    """What the tracker shows of pictures and captions: the targets' numbers are means of both directions."""
    directions = [target_report(each, pairs.own, len(pairs.all_captions)) for each in targets]
    means = {name: torch.stack([each[name] for each in directions]).mean() for name in directions[0]}
    temperature = torch.as_tensor(pairs.temperature, device=pairs.own.device).detach()
    return {"temperature": temperature} | means | spread_report(pairs.pictures.detach(), pairs.captions.detach())
