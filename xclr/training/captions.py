"""Which of a picture's captions a training sees in an epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from xclr.captions.shared import SHARED, picture_of_row
from xclr.training.keyed import keyed_uniform

DRAW = 0xCA  # keeps these numbers apart from those of views


@dataclass(frozen=True)
class CaptionsOf:
    """The rows that show each picture of a training, by the position [n] of the picture; offsets int64 [n + 1].

    In turn, a picture's captions come in an order of their own, and in another when all of them have been.
    """

    offsets: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    in_turn: bool = False

    @classmethod
    def open(
        cls, captions: Path, rows: npt.NDArray[np.int64], usable: npt.NDArray[np.int64], *, in_turn: bool = False
    ) -> CaptionsOf | None:
        """Of pictures by their first usable rows [n]; None where each picture has one row."""
        if not (captions / SHARED).exists():
            return None
        picture = picture_of_row(captions, int(usable.max()) + 1)
        shown = picture[rows]
        own, by_picture = usable[np.isin(picture[usable], shown)], np.argsort(shown)
        place = by_picture[np.searchsorted(shown, picture[own], sorter=by_picture)]
        order = np.argsort(place, kind="stable")
        return cls(np.searchsorted(place[order], np.arange(len(rows) + 1)), own[order], in_turn)

    def drawn(self, seed: int, epoch: int, positions: npt.NDArray[np.int64]) -> Tensor:
        """One row of each of the pictures at positions [b], int64 [b]: by (seed, epoch, picture) alone."""
        first, number = self.offsets[positions], np.diff(self.offsets)[positions]
        if self.in_turn:
            return torch.from_numpy(self._next(seed, epoch, first, number))
        u = keyed_uniform((seed, epoch, DRAW), torch.from_numpy(self.rows[first]), 1)[:, 0].numpy()
        return torch.from_numpy(self.rows[first + np.minimum((u * number).astype(np.int64), number - 1)])

    def _next(
        self, seed: int, epoch: int, first: npt.NDArray[np.int64], number: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Of the pictures whose `number` [b] rows begin at `first` [b] those whose turn it is."""
        chosen = np.empty(len(first), dtype=np.int64)
        for size in np.unique(number):
            mine = np.flatnonzero(number == size)
            turn, place = divmod(epoch, int(size))
            own = self.rows[first[mine, None] + np.arange(size)]  # [m, size]
            u = keyed_uniform((seed, turn, DRAW), torch.from_numpy(own.ravel()), 1).numpy().reshape(own.shape)
            chosen[mine] = own[np.arange(len(own)), np.argsort(u, axis=1, kind="stable")[:, place]]
        return chosen


def look_up_pictures(captions: Path) -> Callable[[Tensor], Tensor]:
    """What gives for row ids [b] the picture of each, by its first row: the row itself where none has two captions."""
    if not (captions / SHARED).exists():
        return lambda rows: rows
    picture = torch.tensor(picture_of_row(captions, 0))
    return lambda rows: picture[rows]
