"""What similarities must be: in [-1, 1], symmetric and 1 on the diagonal; errors name the first that are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xclr.errors import DataError
from xclr.graph.embed import RowIds

TOLERANCE = 1e-5  # of symmetry, of the diagonal and of the ends of [-1, 1]
CHUNK = 1 << 10  # rows of a matrix that are looked at together

Numbers = npt.NDArray[np.floating[Any]]
Called = Callable[[int], str]  # what people call a class or row


class Pairs(NamedTuple):
    """Similarities of different rows, src < dst, sorted, each pair once: [m] each."""

    src: RowIds
    dst: RowIds
    sim: npt.NDArray[np.float32]


def square(matrix: Numbers, called: Called) -> npt.NDArray[np.float32]:
    """Similarities [n, n] as float32 in [-1, 1]; raises DataError naming the first pair that is not as it must be."""
    for start in range(0, len(matrix), CHUNK):
        rows = slice(start, start + CHUNK)
        part, across = matrix[rows], matrix[:, rows].T
        _check_range(part, _pair(called, start))
        _check_alone(part.diagonal(start), _later(called, start))
        uneven = np.argwhere(np.abs(part - across) > TOLERANCE)
        if len(uneven):
            row, col = uneven[0].tolist()
            raise DataError(
                f"not symmetric: {called(start + row)} with {called(col)} has {part[row, col]:g}, and "
                f"{across[row, col]:g} the other way round",
                "give a pair the same similarity in both directions",
            )
    return np.clip(matrix, -1, 1).astype(np.float32, copy=False)


def distinct(src: RowIds, dst: RowIds, sim: Numbers, called: Called) -> Pairs:
    """Edges [m] as pairs, in whatever direction they were given, without those of a row and itself.

    Raises DataError naming the first that is not as it must be.
    """
    _check_range(sim, lambda edge: f"{called(int(src[edge]))} with {called(int(dst[edge]))}")
    own = src == dst
    _check_alone(sim[own], lambda place: called(int(src[own][place])))
    low, high, sim = np.minimum(src, dst)[~own], np.maximum(src, dst)[~own], sim[~own]
    order = np.lexsort((high, low))
    low, high, sim = low[order], high[order], sim[order]
    again = (low[1:] == low[:-1]) & (high[1:] == high[:-1])
    uneven = np.flatnonzero(again & (np.abs(sim[1:] - sim[:-1]) > TOLERANCE))
    if len(uneven):
        edge = int(uneven[0])
        raise DataError(
            f"not symmetric: {called(int(low[edge]))} with {called(int(high[edge]))} has both {sim[edge]:g} and "
            f"{sim[edge + 1]:g}, and so have {len(uneven):,} pairs in all",
            "give a pair once, which holds in both directions, or the same similarity each time",
        )
    once = np.append(True, ~again)[: len(low)]
    return Pairs(low[once], high[once], np.clip(sim[once], -1, 1).astype(np.float32))


def _pair(called: Called, first: int) -> Callable[[int, int], str]:
    return lambda row, col: f"{called(first + row)} with {called(col)}"


def _later(called: Called, first: int) -> Called:
    return lambda place: called(first + place)


def _check_range(sim: Numbers, called: Callable[..., str]) -> None:
    """Raise DataError unless all are in [-1, 1]; `called` gets the place of the first that is not."""
    wrong = np.argwhere(~(np.abs(sim) <= 1 + TOLERANCE))  # NaN is not, either
    if len(wrong):
        raise DataError(
            f"{called(*wrong[0].tolist())} has {sim[tuple(wrong[0])]:g}: a similarity lies in [-1, 1]",
            "scale or clip them",
        )


def _check_alone(sim: Numbers, called: Called) -> None:
    """Raise DataError unless the similarities of things with themselves [n] are 1."""
    wrong = np.flatnonzero(np.abs(sim - 1) > TOLERANCE)
    if len(wrong):
        raise DataError(f"{called(int(wrong[0]))} has {sim[wrong[0]]:g} with itself, not 1", "write 1 there")
