"""Which of the training pictures a pretraining sees: nested subsets, drawn by its seed."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch

from xclr.training.keyed import keyed_uniform

DRAW = 0x5B  # keeps these numbers apart from those of views


def nested(rows: npt.NDArray[np.int64], count: int, seed: int) -> npt.NDArray[np.int64]:
    """The `count` of the sorted row ids [n] with the least (u, row), sorted; u is uniform, keyed by seed and row.

    A pure function of its arguments: the rows of a smaller count are among those of a larger one, and a count of n
    gives all rows.
    """
    drawn = keyed_uniform((seed, DRAW), torch.from_numpy(rows), 1)[:, 0].numpy()
    return rows[np.sort(np.argsort(drawn, kind="stable")[:count])]


def told(rows: npt.NDArray[np.int64]) -> dict[str, int | str]:
    """What a manifest says of the pictures of a training: their number, and the blake2b-128 of their sorted row ids.

    The hash goes over little-endian int64.
    """
    spelled = np.sort(rows).astype("<i8").tobytes()
    return {"train_pictures": len(rows), "subset": hashlib.blake2b(spelled, digest_size=16).hexdigest()}
