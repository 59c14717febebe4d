"""Which of a picture's captions a training sees in an epoch."""

from __future__ import annotations

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
    """The rows that show each picture of a training, by the position [n] of the picture; offsets int64 [n + 1]."""

    offsets: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]

    @classmethod
    def open(cls, captions: Path, rows: npt.NDArray[np.int64], usable: npt.NDArray[np.int64]) -> CaptionsOf | None:
        """Of pictures by their first usable rows [n]; None where each picture has one row."""
        if not (captions / SHARED).exists():
            return None
        picture = picture_of_row(captions, int(usable.max()) + 1)
        shown = picture[rows]
        own, by_picture = usable[np.isin(picture[usable], shown)], np.argsort(shown)
        place = by_picture[np.searchsorted(shown, picture[own], sorter=by_picture)]
        order = np.argsort(place, kind="stable")
        return cls(np.searchsorted(place[order], np.arange(len(rows) + 1)), own[order])

    def drawn(self, seed: int, epoch: int, positions: npt.NDArray[np.int64]) -> Tensor:
        """One row of each of the pictures at positions [b], int64 [b]: by (seed, epoch, picture) alone."""
        first, number = self.offsets[positions], np.diff(self.offsets)[positions]
        u = keyed_uniform((seed, epoch, DRAW), torch.from_numpy(self.rows[first]), 1)[:, 0].numpy()
        return torch.from_numpy(self.rows[first + np.minimum((u * number).astype(np.int64), number - 1)])
