"""What an objective is built from, what it is asked, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xclr.recipe import TrainConfig
from xclr.training.ranks import moved

CPU = torch.device("cpu")
Lookup = Callable[[Tensor], Tensor]  # of row ids int64 [b] on the CPU -> [b, ...] on the CPU


class Looked(NamedTuple):
    """What an objective reads of the captions of a batch, [b, ...] each; None where it reads nothing."""

    text: Tensor | None = None  # what the text tower reads
    graph: Tensor | None = None  # what the graph compares rows by

    def to(self, device: torch.device) -> Looked:
        """The same on a device."""
        return Looked(*(None if each is None else moved(each, device) for each in self))


class Look(NamedTuple):
    """How that is looked up, by whoever loads a batch: nothing in a step waits for it."""

    text: Lookup | None = None
    graph: Lookup | None = None

    def __call__(self, rows: Tensor) -> Looked:
        """What is read of the captions of row ids int64 [b]; all on the CPU."""
        return Looked(*(None if each is None else each(rows) for each in self))


NOTHING = Look()


class StepLoss(NamedTuple):
    """A loss to descend, and what computes the numbers to watch on the steps that are logged; all scalars.

    `chance` is the loss of constant features, by which nothing is told apart, with what was learned before the step.
    """

    loss: Tensor
    report: Callable[[], dict[str, Tensor]]
    chance: Callable[[], float | Tensor]


class Averaging(NamedTuple):
    """What an objective wants of a second network, the running average of the one that is trained."""

    head: nn.Module  # on the backbone's features, of which the second network has an average too
    momentum: float
    maps: bool = False  # of both networks, after each stage of the backbone, which are compared then


class Averaged(NamedTuple):
    """What that second network makes of a batch."""

    z: Tensor  # [2b, d] unit rows of its head, without a gradient
    apart: Tensor | None = None  # scalar, how far the maps of both networks are apart, where that is asked


class Objective(nn.Module):
    """Base of what a training descends: (features, rows, looked) to a StepLoss, with an average an Averaged more."""

    look: Look = NOTHING
    averaging: Averaging | None = None


@dataclass(frozen=True)
class Materials:
    """Where an objective finds what it trains on: the directories of artifacts by role."""

    inputs: Mapping[str, Path]
    features: int
    config: TrainConfig
    device: torch.device = CPU
    steps: int = 0  # of the whole training, where an objective changes on its way
