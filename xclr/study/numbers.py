"""The statistics of a study: contrasts over seeds and pictures, their correction, equivalence, and power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CELLS = 2**22  # of a block of resamples
POWER = 0.8


class Interval(NamedTuple):
    """A mean with its standard error and 95% interval; `p` is two-sided, that it is 0."""

    mean: float
    error: float
    low: float
    high: float
    p: float


class Components(NamedTuple):
    """Where the variance of a mean over seeds and pictures comes from: of a seed, a picture, and the two together."""

    seeds: float
    pictures: float
    both: float


def over_both(values: NDArray[Any], *, resamples: int, seed: int) -> Interval:
    """The mean of values [S, n] of S seeds on the same n pictures, as if both had been drawn from many.

    Its standard error is that of `resamples` means, each over S seeds and n pictures drawn with replacement (pigeonhole
    bootstrap: Owen, Annals of Applied Statistics 1, 2007); interval and p are Student's with S - 1 degrees of freedom.
    Raises ValueError for fewer than two seeds or pictures.
    """
    return over_both_of([values], resamples=resamples, seed=seed)[0]


def over_both_of(tables: Sequence[NDArray[Any]], *, resamples: int, seed: int) -> list[Interval]:
    """The same of several tables of one shape, from the same draws, which are most of the work."""
    count, n = tables[0].shape
    if count < 2 or n < 2:
        raise ValueError(f"{count} seeds and {n} pictures have no interval")
    rng, wide = np.random.default_rng(seed), [np.asarray(each, dtype=np.float64) for each in tables]
    block, means = max(1, CELLS // n), [list[Floats]() for _ in tables]
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        seeds = rng.multinomial(count, np.full(count, 1 / count), size=size) / count
        pictures = rng.multinomial(n, np.full(n, 1 / n), size=size) / n
        for table, found in zip(wide, means, strict=True):
            found.append(np.einsum("rn,rn->r", seeds @ table, pictures))
    return [
        _student(float(table.mean()), float(np.concatenate(found).std(ddof=1)), count)
        for table, found in zip(wide, means, strict=True)
    ]


def over_seeds(values: NDArray[Any]) -> Interval:
    """The mean of values [S] of S >= 2 seeds, with Student's interval."""
    return _student(float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values))), len(values))


def _student(mean: float, error: float, count: int) -> Interval:
    from scipy.stats import t

    half = float(t.ppf(0.975, count - 1)) * error
    if error == 0:
        return Interval(mean, error, mean, mean, 1.0 if mean == 0 else 0.0)
    return Interval(mean, error, mean - half, mean + half, float(2 * t.sf(abs(mean) / error, count - 1)))


def equivalence(found: Interval, within: float, seeds: int) -> float:
    """p of two one-sided tests that the mean lies outside of -within .. within: small where there is no difference."""
    from scipy.stats import t

    if found.error == 0:
        return float(abs(found.mean) >= within)
    return float(max(t.sf((within - abs(found.mean)) / found.error, seeds - 1), 0.0))


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for being several: Holm, Scandinavian Journal of Statistics 6, 1979."""
    order, worst, adjusted = np.argsort(ps), 0.0, [0.0] * len(ps)
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = worst
    return adjusted


def components(values: NDArray[Any]) -> Components:
    """The variance components of values [S, n], S and n >= 2, by the mean squares of a two-way table; none below 0."""
    table = np.asarray(values, dtype=np.float64)
    count, n = table.shape
    rows, columns = table.mean(1), table.mean(0)
    rest = table - rows[:, None] - columns + table.mean()
    both = float((rest**2).sum() / ((count - 1) * (n - 1)))
    seeds, pictures = (float(each.var(ddof=1)) for each in (rows, columns))
    return Components(max(0.0, seeds - both / n), max(0.0, pictures - both / count), both)


def seeds_needed(parts: Components, pictures: int, difference: float, alpha: float) -> int | None:
    """How many seeds tell a difference from 0 with a power of 80% at two-sided alpha; None: no number does.

    None where the pictures alone leave too much to chance: var = seeds / S + pictures / n + both / (S n).
    """
    from scipy.stats import norm

    target = (difference / float(norm.ppf(1 - alpha / 2) + norm.ppf(POWER))) ** 2
    left = target - parts.pictures / pictures
    if left <= 0:
        return None
    return max(2, math.ceil((parts.seeds + parts.both / pictures) / left))


def rank_correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's correlation of a and b [n]."""
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
