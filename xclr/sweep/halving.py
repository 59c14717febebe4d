"""Successive halving: which cells of a sweep are weak by what they are while they train.

At each rung, a share of the training, the better half of those that have come so far goes on (Jamieson and Talwalkar,
arXiv 1502.07943; here without waiting for the slowest, as in ASHA, arXiv 1810.05934). Nothing is kept: whoever looks
again, after a crash as well, comes to the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)

RUNGS = (1 / 8, 1 / 4, 1 / 2)  # of a training's steps
FEWEST = 4  # that have come to a rung before any of them is weak there


class Look(NamedTuple):
    """How good a network was after a share of its training; a higher value is better."""

    share: float
    value: float


class Weakness(NamedTuple):
    """A cell that is not in the better half of the `come` at a rung: its value there, and the lowest of that half."""

    rung: float
    value: float
    lowest: float
    come: int


def find_weak(looks: Mapping[K, Sequence[Look]]) -> dict[K, Weakness]:
    """The weak among competing cells, each by the first rung at which it is; looks are in the order of their shares.

    A cell comes to a rung with its first look there or later. Of equal values none is weak before another.
    """
    found: dict[K, Weakness] = {}
    for rung in RUNGS:
        values = {key: next((each.value for each in own if each.share >= rung), None) for key, own in looks.items()}
        come = {key: value for key, value in values.items() if value is not None and key not in found}
        if len(come) < FEWEST:
            continue
        lowest = sorted(come.values(), reverse=True)[(len(come) + 1) // 2 - 1]
        found |= {key: Weakness(rung, value, lowest, len(come)) for key, value in come.items() if value < lowest}
    return found
