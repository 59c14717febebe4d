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
from xclr.training.objectives.materials import Materials, StepLoss
from xclr.training.objectives.report import spread_report, target_report
from xclr.training.objectives.towers import block_of, unit


class Views(NamedTuple):
    """The views of a global batch, as one rank sees them."""

    z: Tensor  # [2b, d] this rank's unit rows, all first views, then all second
    candidates: Tensor  # [2B, d] those of all ranks, in the same order
    rows: Tensor  # [b] row ids
    all_rows: Tensor  # [B]
    anchors: Tensor  # [2b] columns of z's rows among the candidates


ViewTargets = Callable[[Views], TargetRows]


class ViewObjective(nn.Module):
    """Image-image contrast: every view is an anchor, the views of the global batch are candidates."""

    def __init__(
        self,
        head: nn.Module,
        config: ViewsConfig,
        targets: ViewTargets,
        excluded: Callable[[Tensor, int], Tensor] = itself,
        *,
        blockwise_from: int = 2048,
    ) -> None:
        super().__init__()
        self.head = head
        self.temperature = config.temperature
        self.targets, self.excluded = targets, excluded
        self.blockwise_from = blockwise_from

    def forward(self, features: Tensor, rows: Tensor) -> StepLoss:
        """The contrastive loss of this rank's views among those of all ranks."""
        z = unit(self.head(features))
        with torch.autocast(z.device.type, enabled=False):
            anchors = anchor_index(len(rows), device=rows.device)
            views = Views(z, gather_views(z), rows, gather_rows(rows), anchors)
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
        return StepLoss(loss, partial(self._report, views, targets), math.log(count - excluded.shape[1]))

    @torch.no_grad()
    def _report(self, views: Views, targets: TargetRows) -> dict[str, Tensor]:
        pair = (views.anchors + len(views.all_rows)) % len(views.candidates)
        first, second = views.z.detach().chunk(2)
        return (
            {"temperature": first.new_tensor(self.temperature)}
            | target_report(targets, pair, len(views.candidates))
            | spread_report(first, second)
        )


def view_objective(
    config: ViewsConfig,
    materials: Materials,
    targets: ViewTargets,
    excluded: Callable[[Tensor, int], Tensor] = itself,
) -> nn.Module:
    head = projector(materials.features, materials.config)
    return ViewObjective(head, config, targets, excluded, blockwise_from=materials.config.blockwise_from)


def other_views(views: Views) -> TargetRows:
    return lambda part: pair_targets(views.anchors[part], len(views.candidates))
