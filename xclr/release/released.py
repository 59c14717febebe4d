"""A backbone that is handed out, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from xclr.images.preparation import Preparation
from xclr.recipe import ObjectiveConfig, Recipe, TrainConfig
from xclr.release.known import Known, known
from xclr.stage import Origin


@dataclass(frozen=True)
class About:
    """What is known of a training, and of the run that it belongs to where one asks for the export.

    `stats` are those of its manifest, `rows` the captioned pictures of the data, `scores` rows of the schema SCORES.
    """

    origin: Origin
    objective: ObjectiveConfig
    stats: Mapping[str, Any]
    digest: str
    rows: int | None = None
    scores: Sequence[Mapping[str, Any]] = ()
    recipe: Recipe | None = None


@dataclass(frozen=True, eq=False)
class Released:
    """A frozen backbone, `width` features a picture, how it was trained, and what it is shown.

    `behind` in [0, 1] is the grey under transparent parts of a picture.
    """

    backbone: nn.Module
    width: int
    train: TrainConfig
    preparation: Preparation
    behind: float
    about: About

    @property
    def known(self) -> Known:
        """What other libraries know of it."""
        return known(self.train)

    @property
    def state(self) -> dict[str, Tensor]:
        """Its weights by its own names, on the CPU, each dense in its own memory."""
        return {name: each.detach().cpu().contiguous() for name, each in self.backbone.state_dict().items()}
