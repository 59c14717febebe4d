"""Objectives between two views of pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xclr.objective import TargetRows, anchor_index, contrast, gather_rows, gather_views, itself, pair_targets
from xclr.recipe import ViewsConfig
from xclr.training.model import projector
from xclr.training.objectives.materials import Look, Looked, Lookup, Materials, Objective, StepLoss
from xclr.training.objectives.report import spread_report, target_report
from xclr.training.objectives.towers import block_of, unit


class Views(NamedTuple):
    """The views of a global batch, as one rank sees them."""

    z: Tensor  # [2b, d] this rank's unit rows, all first views, then all second
    candidates: Tensor  # [2B, d] those of all ranks, in the same order
    keys: Tensor | None  # [2b, ...] what the graph compares this rank's views by
    all_keys: Tensor | None  # [B, ...] and all samples
    anchors: Tensor  # [2b] columns of z's rows among the candidates


ViewTargets = Callable[[Views], TargetRows]


class ViewObjective(Objective):
    """Image-image contrast: every view is an anchor, the views of the global batch are candidates."""

    def __init__(
        self,
        head: nn.Module,
        config: ViewsConfig,
        targets: ViewTargets,
        excluded: Callable[[Tensor, int], Tensor] = itself,
        *,
        graph: Lookup | None = None,
        blockwise_from: int = 2048,
    ) -> None:
        super().__init__()
        self.head = head
        self.temperature = config.temperature
        self.targets, self.excluded = targets, excluded
        self.look = Look(graph=graph)
        self.blockwise_from = blockwise_from

    def forward(self, features: Tensor, rows: Tensor, looked: Looked) -> StepLoss:
        """The contrastive loss of this rank's views among those of all ranks."""
        z = unit(self.head(features))
        with torch.autocast(z.device.type, enabled=False):
            anchors = anchor_index(len(rows), device=rows.device)
            keys, all_keys = (None, None) if looked.graph is None else both_views(looked.graph)
            views = Views(z, gather_views(z), keys, all_keys, anchors)
            targets, count = self.targets(views), len(views.candidates)
            excluded = self.excluded(anchors, count)
            loss = contrast(
                z,
                views.candidates,
                targets,
                temperature=self.temperature,
                excluded=excluded,
                block=block_of(views.candidates, count, self.blockwise_from),
            )
        return StepLoss(loss, partial(self._report, views, targets), partial(math.log, count - excluded.shape[1]))

    @torch.no_grad()
    def _report(self, views: Views, targets: TargetRows) -> dict[str, Tensor]:
        pair = (views.anchors + len(views.candidates) // 2) % len(views.candidates)
        first, second = views.z.detach().chunk(2)
        return (
            {"temperature": first.new_tensor(self.temperature)}
            | target_report(targets, pair, len(views.candidates))
            | spread_report(first, second)
        )


def both_views(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The keys [2b, ...] of this rank's views, and those [B, ...] of all ranks' samples."""
    return torch.cat([keys, keys]), gather_rows(keys)


def view_objective(
    config: ViewsConfig,
    materials: Materials,
    targets: ViewTargets,
    excluded: Callable[[Tensor, int], Tensor] = itself,
    graph: Lookup | None = None,
) -> Objective:
    head = projector(materials.features, materials.config)
    start = materials.config.blockwise_from
    return ViewObjective(head, config, targets, excluded, graph=graph, blockwise_from=start)


def mixed(soft: TargetRows, hard: TargetRows, share: float) -> TargetRows:
    """share * soft + (1 - share) * hard targets; with a share of 0 or 1 the ones or the others themselves.

    Source: arXiv 2111.14585, equation 4, whose lambda is 1 - share.
    """
    if share in {0.0, 1.0}:
        return soft if share else hard
    return lambda part: share * soft(part) + (1 - share) * hard(part)


def other_view(x: Tensor) -> Tensor:
    """Rows [2b, ...], all second views, then all first ones."""
    return x.roll(len(x) // 2, 0)


def other_views(views: Views) -> TargetRows:
    return lambda part: pair_targets(views.anchors[part], len(views.candidates))
