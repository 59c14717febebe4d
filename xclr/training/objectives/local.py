"""Local pairs, beside those of pictures and captions: a head of their own, and captions that lack words."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from xclr.objective import anchor_index, world_and_rank
from xclr.recipe import CLIPConfig
from xclr.training.objectives.materials import Looked, StepLoss
from xclr.training.objectives.pairs import PairObjective, PairTargets
from xclr.training.objectives.towers import TextPairs, Towers, pairs_of_views, unit
from xclr.training.words import Reading, leave_out


class LocalPairs(nn.Module):
    """A second head on the pictures' features, and a second projection of what a text tower makes of short captions."""

    def __init__(self, head: nn.Module, out: int, reading: Reading, share: float) -> None:
        super().__init__()
        self.head, self.text = head, nn.Linear(out, out, bias=False)
        self.reading, self.share = reading, share

    def forward(
        self, features: Tensor, tokens: Tensor, text: nn.Module, temperature: float | Tensor
    ) -> list[TextPairs]:
        """Pictures and short captions of all ranks, once for each view; `text` is the tower, [b, t] to [b, out]."""
        z, t = self.head(features), self.text(text(self.shorten(tokens)))
        return pairs_of_views(unit(z), unit(t), None, temperature)

    def shorten(self, tokens: Tensor) -> Tensor:
        """Captions [b, t] without some words, drawn from torch's generator as one process would for those of all ranks.

        A number for each place of the longest caption there can be, so that no rank depends on the longest of its own.
        """
        count, own = world_and_rank()[0] * len(tokens), anchor_index(len(tokens), views=1, device=tokens.device)
        numbers = torch.rand(count, self.reading.tokens, device=tokens.device)
        return leave_out(tokens, numbers[own, : tokens.shape[1]], self.share, self.reading.marks)


class LocalPairObjective(PairObjective):
    """A contrast of pictures and captions, and `config.local` times the same of local pairs, at the same scale.

    Source: arXiv 2305.08675, CL2L.
    """

    def __init__(self, towers: Towers, config: CLIPConfig, targets: PairTargets, local: LocalPairs) -> None:
        super().__init__(towers, config, targets)
        self.local, self.weight = local, config.local

    def forward(self, features: Tensor, rows: Tensor, looked: Looked) -> StepLoss:
        """Mean over the views, of either."""
        assert looked.text is not None
        found = super().forward(features, rows, looked)
        pairs = self.local(features, looked.text, self.towers.text, self.temperature())
        local = torch.stack([self.loss(each) for each in pairs]).mean()
        chance = self.weight * math.log(len(pairs[0].all_captions))
        return StepLoss(
            found.loss + self.weight * local,
            partial(self._report_of, found.report, local.detach()),
            lambda: found.chance() + chance,
        )

    def _report_of(self, report: Callable[[], dict[str, Tensor]], local: Tensor) -> dict[str, Tensor]:
        """With the targets' entropy in both terms, the least that the loss can be."""
        told = report()
        return told | {"target_entropy": (1 + self.weight) * told["target_entropy"], "local_loss": local}
