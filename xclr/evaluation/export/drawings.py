"""How the emoji are drawn for each data set: the background behind them, and what is blacked out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from xclr.training.keyed import keyed_uniform
from xclr.training.views import (
    GROUPS,
    PLAIN,
    TEXTURE_SIDE,
    TEXTURES,
    composite,
    evaluation_backdrop,
    shuffled_groups,
    texture_bank,
)

SIDE = 48  # of a picture, pixels: that of the source
BORDER = 2  # pixels around ObjectNet's pictures
RED = (1.0, 0.0, 0.0)
Draw = Callable[[Tensor, Tensor], Tensor]  # (premultiplied pictures [b, 4, s, s], rows [b]) -> [b, 3, ., .] in [0, 1]


@dataclass(frozen=True, eq=False)
class Scenery:
    """Backgrounds, fixed by row and seed; `groups` int64 [N] is the group of each row, whose textures are its own."""

    groups: Tensor
    seed: int
    bank: Tensor = field(default_factory=texture_bank)

    def keys(self, rows: Tensor) -> Tensor:
        """What random numbers of the rows [b] are drawn by, [b]; rows of another seed have others."""
        return rows + (self.seed << 32)

    def of(self, groups: Tensor, rows: Tensor) -> Tensor:
        """A texture of the given groups [b]: [b, 3, SIDE, SIDE]."""
        return evaluation_backdrop(self.bank, groups, self.keys(rows), SIDE)

    def own(self, rows: Tensor) -> Tensor:
        """A texture of the rows' own group."""
        return self.of(self.groups[rows], rows)

    def sibling(self, rows: Tensor) -> Tensor:
        """Another texture of the own group than `own` has."""
        others = self.bank.reshape(-1, TEXTURES, *self.bank.shape[1:]).roll(1, dims=1).flatten(0, 1)
        return evaluation_backdrop(others, self.groups[rows], self.keys(rows), SIDE)

    def elsewhere(self, rows: Tensor) -> Tensor:
        """The texture that `own` has, cut half a texture further."""
        moved = self.bank.roll((TEXTURE_SIDE // 2, TEXTURE_SIDE // 2), dims=(2, 3))
        return evaluation_backdrop(moved, self.groups[rows], self.keys(rows), SIDE)


def plain(pictures: Tensor, rows: Tensor) -> Tensor:
    """On grey."""
    return composite(pictures, PLAIN)


def bordered(pictures: Tensor, rows: Tensor) -> Tensor:
    """On grey, in a red frame that makes the picture larger."""
    side = SIDE + 2 * BORDER
    framed = torch.tensor(RED)[:, None, None].repeat(len(rows), 1, side, side)
    framed[:, :, BORDER:-BORDER, BORDER:-BORDER] = plain(pictures, rows)
    return framed


def trained(scenery: Scenery, share: float) -> Draw:
    """As in training: a texture of the own group on that share of the pictures, one random colour on the others."""

    def draw(pictures: Tensor, rows: Tensor) -> Tensor:
        u = keyed_uniform((0x7A,), scenery.keys(rows), 4)
        textured = (u[:, 3] < share)[:, None, None, None]
        return composite(pictures, torch.where(textured, scenery.own(rows), u[:, :3, None, None]))

    return draw


def variants(scenery: Scenery, kept: Tensor) -> Mapping[str, Draw]:
    """ImageNet-9's variants, by name; kept int64 [G] are the groups that are its classes, in order.

    Every row that is drawn is of one of them; "next" and "random" go round among them.
    """
    place = torch.full((GROUPS,), -1)
    place[kept] = torch.arange(len(kept))

    def random(rows: Tensor) -> Tensor:
        other = shuffled_groups(place[scenery.groups[rows]], scenery.keys(rows), len(kept))
        return scenery.of(kept[other], rows)

    def following(rows: Tensor) -> Tensor:
        return scenery.of(kept[(place[scenery.groups[rows]] + 1) % len(kept)], rows)

    return {
        "original": lambda pictures, rows: composite(pictures, scenery.own(rows)),
        "mixed_same": lambda pictures, rows: composite(pictures, scenery.sibling(rows)),
        "mixed_rand": lambda pictures, rows: composite(pictures, random(rows)),
        "mixed_next": lambda pictures, rows: composite(pictures, following(rows)),
        "no_fg": lambda pictures, rows: (1 - pictures[:, 3:]) * scenery.own(rows),
        "only_bg_b": lambda pictures, rows: torch.where(bounding_box(pictures), 0.0, scenery.own(rows)),
        "only_bg_t": lambda pictures, rows: torch.where(
            bounding_box(pictures), scenery.elsewhere(rows), scenery.own(rows)
        ),
        "only_fg": lambda pictures, rows: composite(pictures, 0.0),
    }


def bounding_box(pictures: Tensor) -> Tensor:
    """The smallest box around what is not transparent: bool [b, 1, s, s] of pictures [b, 4, s, s]."""
    shape = pictures[:, 3:] > 0
    return _between(shape.any(3, keepdim=True), 2) & _between(shape.any(2, keepdim=True), 3)


def _between(mask: Tensor, dim: int) -> Tensor:
    """True from the first to the last true place along a dimension."""
    begun = mask.int().cumsum(dim) > 0
    ends = mask.int().flip(dim).cumsum(dim).flip(dim) > 0
    return begun & ends
