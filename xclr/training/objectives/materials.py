"""What an objective is built from, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from xclr.recipe import TrainConfig


class StepLoss(NamedTuple):
    """A loss to descend, and what computes the numbers to watch on the steps that are logged; all scalars.

    `chance` is the loss of constant features, by which nothing is told apart.
    """

    loss: Tensor
    report: Callable[[], dict[str, Tensor]]
    chance: float


@dataclass(frozen=True)
class Materials:
    """Where an objective finds what it trains on: the directories of artifacts by role."""

    inputs: Mapping[str, Path]
    features: int
    config: TrainConfig
