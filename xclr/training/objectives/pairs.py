"""Objectives between pictures and their captions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from xclr.objective import (
    TargetRows,
    alignment,
    contrast,
    cross_uniformity,
    gather_rows,
    identity_targets,
    jensen_shannon_loss,
    retrieve,
    sigmoid_loss,
    uniformity,
)
from xclr.recipe import CLIPLiteConfig, CLOOBConfig, LearnedScaleConfig, PairsConfig, SigLIPConfig
from xclr.training.objectives.materials import Look, Looked, Lookup, Objective, StepLoss
from xclr.training.objectives.report import spread_report, target_report
from xclr.training.objectives.scale import LearnedScale
from xclr.training.objectives.towers import TextPairs, Towers

PairTargets = Callable[
    [TextPairs], tuple[TargetRows, TargetRows]
]  # of pictures over captions, of captions over pictures

Chance = Callable[[], float | Tensor]


class TextObjective(Objective, ABC):
    """Base of the objectives between pictures and captions: a loss of each view by itself, and terms of the gap."""

    def __init__(self, towers: Towers, config: PairsConfig, graph: Lookup | None = None) -> None:
        super().__init__()
        self.towers, self.look = towers, Look(towers.texts, graph)
        self.alignment, self.uniformity = config.alignment, config.uniformity
        self.cross_uniformity = config.cross_uniformity

    def forward(self, features: Tensor, rows: Tensor, looked: Looked) -> StepLoss:
        """Mean over the views."""
        views = self.towers(features, looked, self.temperature())
        loss, gap = torch.stack([self.loss(pairs) for pairs in views]).mean(), None
        if self.alignment or self.uniformity or self.cross_uniformity:
            gap = torch.stack([self._gap(pairs) for pairs in views]).mean()
            loss, gap = loss + gap, gap.detach()
        chances = [self.chance(pairs) for pairs in views]
        return StepLoss(loss, partial(self.report, views[0]), partial(_chance_of, chances, gap))

    @abstractmethod
    def temperature(self) -> float | Tensor:
        """What divides the similarities."""

    @abstractmethod
    def loss(self, pairs: TextPairs) -> Tensor:
        """The loss of one view."""

    @abstractmethod
    def chance(self, pairs: TextPairs) -> Chance:
        """Its value where all features are the same, with what is learned as it stands now."""

    @abstractmethod
    def report(self, pairs: TextPairs) -> dict[str, Tensor]:
        """What the tracker shows of one view."""

    def _gap(self, pairs: TextPairs) -> Tensor:
        """The terms of arXiv 2405.18570, section 4: uniformity is the mean of both modalities, over all ranks."""
        every, block = (pairs.all_pictures, pairs.all_captions), self.towers.block(pairs.all_captions)
        terms = [self.alignment * alignment(pairs.pictures, pairs.captions)] if self.alignment else []
        terms += [self.uniformity / 2 * uniformity(each, block) for each in every] if self.uniformity else []
        terms += [self.cross_uniformity * cross_uniformity(*every, block)] if self.cross_uniformity else []
        return torch.stack(terms).sum()


class PairObjective(TextObjective):
    """Image-text contrast in both directions; the scale is learned and limited."""

    def __init__(
        self, towers: Towers, config: LearnedScaleConfig, targets: PairTargets, graph: Lookup | None = None
    ) -> None:
        super().__init__(towers, config, graph)
        self.targets, self.scale = targets, LearnedScale(config)

    def temperature(self) -> Tensor:
        """Of the learned scale."""
        return inverse(self.scale)

    def loss(self, pairs: TextPairs) -> Tensor:
        """The mean of both directions."""
        block = self.towers.block(pairs.all_captions)
        directions = ((pairs.pictures, pairs.all_captions), (pairs.captions, pairs.all_pictures))
        losses = [
            contrast(anchors, candidates, rows, temperature=pairs.temperature, block=block)
            for (anchors, candidates), rows in zip(directions, self.targets(pairs), strict=True)
        ]
        return (losses[0] + losses[1]) / 2

    def chance(self, pairs: TextPairs) -> Chance:
        """All captions are as near."""
        return partial(math.log, len(pairs.all_captions))

    def report(self, pairs: TextPairs) -> dict[str, Tensor]:
        """The targets' numbers are means of both directions."""
        return pair_report(pairs, self.targets(pairs))


class CLOOBObjective(TextObjective):
    """InfoLOOB in both directions on what Hopfield networks retrieve from the batch's pictures and captions."""

    def __init__(self, towers: Towers, config: CLOOBConfig) -> None:
        super().__init__(towers, config)
        self.tau, self.hopfield_scale = 1 / config.scale, config.hopfield_scale

    def temperature(self) -> float:
        """Fixed."""
        return self.tau

    def loss(self, pairs: TextPairs) -> Tensor:
        """tau (InfoLOOB(U_x, U_y) + InfoLOOB(V_y, V_x)); U from stored pictures x, V from captions y.

        Source: arXiv 2110.11316, equations 5 to 7.
        """
        from_pictures = [self._retrieve(each, pairs.all_pictures) for each in (pairs.pictures, pairs.captions)]
        from_captions = [self._retrieve(each, pairs.all_captions) for each in (pairs.captions, pairs.pictures)]
        losses = [
            contrast(
                anchors,
                gather_rows(candidates),
                identity_rows(pairs.own, len(pairs.all_captions)),
                temperature=self.tau,
                excluded=pairs.own[:, None],
                block=self.towers.block(pairs.all_captions),
            )
            for anchors, candidates in (from_pictures, from_captions)
        ]
        return self.tau * (losses[0] + losses[1])

    def chance(self, pairs: TextPairs) -> Chance:
        """All other captions are as near."""
        others = len(pairs.all_captions) - 1
        return lambda: 2 * self.tau * math.log(others)

    def report(self, pairs: TextPairs) -> dict[str, Tensor]:
        """Its targets are one-hot."""
        return pair_report(pairs, own_captions(pairs))

    def _retrieve(self, queries: Tensor, stored: Tensor) -> Tensor:
        return retrieve(queries, stored, scale=self.hopfield_scale)


class SigmoidObjective(TextObjective):
    """Every picture and caption by itself is a pair or none; scale and bias are learned.

    `targets` give how far each of all captions is a match of a picture, from 0 to 1.
    """

    def __init__(
        self, towers: Towers, config: SigLIPConfig, targets: Callable[[TextPairs], TargetRows], graph: Lookup
    ) -> None:
        super().__init__(towers, config, graph)
        self.targets, self.scale = targets, LearnedScale(config)
        self.bias = nn.Parameter(torch.tensor(config.init_bias))

    def temperature(self) -> Tensor:
        """Of the learned scale."""
        return inverse(self.scale)

    def loss(self, pairs: TextPairs) -> Tensor:
        """Of this rank's pictures and all captions."""
        rows, scale = self.targets(pairs), 1 / torch.as_tensor(pairs.temperature)
        block = self.towers.block(pairs.all_captions)
        return sigmoid_loss(pairs.pictures, pairs.all_captions, rows, scale=scale, bias=self.bias, block=block)

    @torch.no_grad()
    def chance(self, pairs: TextPairs) -> Chance:
        """All pairs have the mean logit."""
        logit = pairs.pictures.mean(0) @ pairs.all_captions.mean(0) / pairs.temperature + self.bias
        return partial(self._chance_at, pairs, logit)

    @torch.no_grad()
    def _chance_at(self, pairs: TextPairs, logit: Tensor) -> Tensor:
        matches, count = _matches(self.targets(pairs), pairs), len(pairs.all_captions)
        return count * nn.functional.softplus(logit) - matches * logit

    @torch.no_grad()
    def report(self, pairs: TextPairs) -> dict[str, Tensor]:
        """Its matches are no distribution; the entropy is that of all of a picture's, each by itself."""
        rows, step = self.targets(pairs), max(1, (1 << 20) // len(pairs.all_captions))
        parts = [rows(slice(start, start + step)) for start in range(0, len(pairs.own), step)]
        entropy = torch.cat([(torch.special.entr(each) + torch.special.entr(1 - each)).sum(1) for each in parts])
        temperature = torch.as_tensor(pairs.temperature).detach()
        told = {"temperature": temperature, "bias": self.bias.detach(), "target_entropy": entropy.mean()}
        return told | spread_report(pairs.pictures.detach(), pairs.captions.detach())


def _matches(rows: TargetRows, pairs: TextPairs) -> Tensor:
    """How many captions match a picture in the mean, in parts of a match too."""
    step = max(1, (1 << 20) // len(pairs.all_captions))
    parts = [rows(slice(start, start + step)).sum(1) for start in range(0, len(pairs.own), step)]
    return torch.cat(parts).mean()


class LiteObjective(TextObjective):
    """Each picture has its caption and one other, that of the sample before; the scale is learned and limited."""

    def __init__(self, towers: Towers, config: CLIPLiteConfig) -> None:
        super().__init__(towers, config)
        self.scale = LearnedScale(config)

    def temperature(self) -> Tensor:
        """Of the learned scale."""
        return inverse(self.scale)

    def loss(self, pairs: TextPairs) -> Tensor:
        """The other caption is that of the row before in the batch of all ranks."""
        return jensen_shannon_loss(*self._scores(pairs))

    def chance(self, pairs: TextPairs) -> Chance:
        """Both captions have the mean score."""
        return partial(self._chance_of_scores, pairs)

    @torch.no_grad()
    def _chance_of_scores(self, pairs: TextPairs) -> Tensor:
        mean = torch.cat(self._scores(pairs)).mean()
        return nn.functional.softplus(mean) + nn.functional.softplus(-mean)

    def _scores(self, pairs: TextPairs) -> tuple[Tensor, Tensor]:
        others = pairs.all_captions[(pairs.own - 1) % len(pairs.all_captions)]
        matched, other = ((pairs.pictures * each).sum(1) / pairs.temperature for each in (pairs.captions, others))
        return matched, other

    @torch.no_grad()
    def report(self, pairs: TextPairs) -> dict[str, Tensor]:
        """Scale and spread."""
        temperature = torch.as_tensor(pairs.temperature).detach()
        return {"temperature": temperature} | spread_report(pairs.pictures.detach(), pairs.captions.detach())


@torch.no_grad()
def _chance_of(views: list[Chance], gap: Tensor | None) -> float | Tensor:
    chance = sum(each() for each in views) / len(views)
    return chance if gap is None else chance + gap


def inverse(scale: LearnedScale) -> Tensor:
    """The temperature of a learned scale."""
    found: Tensor = 1 / scale()
    return found


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
    return objective.towers if isinstance(objective, TextObjective) else None


@torch.no_grad()
def pair_report(pairs: TextPairs, targets: tuple[TargetRows, TargetRows]) -> dict[str, Tensor]:
    """What the tracker shows of pictures and captions: the targets' numbers are means of both directions."""
    directions = [target_report(each, pairs.own, len(pairs.all_captions)) for each in targets]
    means = {name: torch.stack([each[name] for each in directions]).mean() for name in directions[0]}
    temperature = torch.as_tensor(pairs.temperature, device=pairs.own.device).detach()
    return {"temperature": temperature} | means | spread_report(pairs.pictures.detach(), pairs.captions.detach())
