"""The learned scale of logits, which has limits and an optimiser of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from xclr.recipe import LearnedScaleConfig


class LearnedScale(nn.Module):
    """1 / temperature, kept from 1 to config.max_scale; its logarithm is learned, at `learning_rate`.

    Source: open_clip, which clamps the logarithm to [0, log 100] after each step.
    """

    def __init__(self, config: LearnedScaleConfig) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(1 / config.init_temperature)))
        self.most, self.learning_rate = config.max_scale, config.scale_learning_rate

    def forward(self) -> Tensor:
        """The scale, a scalar."""
        with torch.no_grad():  # the parameter itself, so that its gradient can bring it back again
            self.log.clamp_(0, math.log(self.most))
        return self.log.exp()
