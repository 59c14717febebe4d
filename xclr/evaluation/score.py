"""Scores and their intervals: bootstrap over items for one seed, Student-t over three seeds or more, never mixed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xclr.errors import DataError
from xclr.evaluation.stages import SuiteConfig

CELLS = 2**21  # of a block of resamples: 16 MB
GROUP = ("method", "graph", "suite", "split", "metric")
Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # counts [r, n], how often each resample drew each item -> values [r]


@dataclass(frozen=True)
class Score:
    """One number of a suite: `value` is a fraction, `n` its items, `ci95` the half width of its 95% interval."""

    suite: str
    split: str
    metric: str
    value: float
    n: int
    ci95: float | None
    ci_kind: str  # bootstrap, t-draws (few-shot), or none
    remark: str | None = None  # what a reader of the value must know


@dataclass(frozen=True)
class Summary:
    """The mean of a score over seeds: `ci95` is a half width, `n` the items of one seed's score."""

    method: str
    graph: str
    suite: str
    split: str
    metric: str
    mean: float
    ci95: float | None
    ci_kind: str  # bootstrap (one seed), t-seeds (three or more), none
    seeds: int
    n: int


def resample_counts(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Draw n of n items with replacement, `resamples` times; yields counts [r, n] in blocks of bounded memory.

    Row i is the same for every block size. Raises ValueError without items or resamples.
    """
    if n < 1 or resamples < 1:
        raise ValueError(f"a bootstrap needs items and resamples, not {n} and {resamples}")
    rng = np.random.default_rng(seed)
    block = max(1, CELLS // n)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def bootstrap_interval(statistic: Statistic, n: int, *, resamples: int, seed: int) -> float:
    """Half of the 2.5 to 97.5 percentile range of `statistic` over resampled items.

    `statistic` maps counts [r, n] to values [r]. Equal seeds draw equal resamples. Raises ValueError as
    resample_counts does.
    """
    values = np.concatenate([statistic(counts) for counts in resample_counts(n, resamples, seed)])
    low, high = np.percentile(values, [2.5, 97.5])
    return float(high - low) / 2


def bootstrap_half_width(per_item: NDArray[Any], *, resamples: int, seed: int) -> float:
    """Half of the 2.5 to 97.5 percentile range of the resampled means of per_item [n]; raises ValueError if empty."""
    values = np.asarray(per_item, dtype=np.float64)
    return bootstrap_interval(lambda counts: counts @ values / len(values), len(values), resamples=resamples, seed=seed)


def t_half_width(values: Sequence[float]) -> float:
    """t(0.975, s - 1) * sd / sqrt(s) over the values of s seeds; raises ValueError for fewer than three."""
    seeds = len(values)
    if seeds < 3:
        raise ValueError(f"an interval over seeds needs three or more, not {seeds}")
    from scipy.special import stdtrit  # which scipy.stats' t.ppf is; that one's import takes 0.6 s

    return float(stdtrit(seeds - 1, 0.975)) * float(np.std(values, ddof=1)) / math.sqrt(seeds)


def class_mean(classes: NDArray[np.int64], per_item: NDArray[Any]) -> Statistic:
    """The statistic mean_c (mean of per_item over the items of class c), for classes [n] and per_item [n].

    A class that a resample did not draw is left out of its mean.
    """
    order = np.argsort(classes, kind="stable")
    starts = np.flatnonzero(np.diff(classes[order], prepend=classes[order][:1] - 1))
    values = np.asarray(per_item, dtype=np.float64)[order]

    def statistic(counts: Floats) -> Floats:
        counts = counts[:, order]
        drawn = np.add.reduceat(counts, starts, axis=1)  # [r, C]
        total = np.add.reduceat(counts * values, starts, axis=1)
        means: Floats = (total / np.maximum(drawn, 1)).sum(1) / (drawn > 0).sum(1)
        return means

    return statistic


def mean_score(config: SuiteConfig, split: str, metric: str, per_item: NDArray[Any]) -> Score:
    """The mean of per_item [n], n >= 1, with a bootstrap interval over its items."""
    values = np.asarray(per_item, dtype=np.float64)
    return statistic_score(config, split, metric, lambda counts: counts @ values / len(values), len(values))


def accuracy_score(config: SuiteConfig, split: str, target: NDArray[np.int64], prediction: NDArray[np.int64]) -> Score:
    """Share of the n >= 1 items whose prediction [n] is their target [n], as metric top1."""
    return mean_score(config, split, "top1", target == prediction)


def statistic_score(config: SuiteConfig, split: str, metric: str, statistic: Statistic, n: int) -> Score:
    """A statistic of n >= 1 items with its bootstrap interval; a single item has none."""
    value = float(statistic(np.ones((1, n)))[0])
    if n < 2:
        return Score(config.suite, split, metric, value, n, None, "none")
    half = bootstrap_interval(statistic, n, resamples=config.bootstrap, seed=config.seed)
    return Score(config.suite, split, metric, value, n, half, "bootstrap")


def summarise(rows: pa.Table | Iterable[Mapping[str, Any]]) -> list[Summary]:
    """Average score rows over seeds, one Summary for each (method, graph, suite, split, metric) in order of appearance.

    One seed keeps its own interval; three or more get Student-t over seeds (t-seeds); two have a mean and no
    interval (none). Rows are those of schema.SCORES, as a table or as dicts; a row that stands twice counts once.
    Raises DataError when a seed has two different checkpoints.
    """
    groups: dict[tuple[str, ...], dict[int, Mapping[str, Any]]] = {}
    for row in rows.to_pylist() if isinstance(rows, pa.Table) else rows:
        seeds = groups.setdefault(tuple(row[name] for name in GROUP), {})
        before = seeds.setdefault(row["seed"], row)
        if (before["checkpoint"], before["value"]) != (row["checkpoint"], row["value"]):
            raise DataError(
                f"{row['method']} ({row['graph']}) has two checkpoints of seed {row['seed']}",
                "compare runs of one recipe at a time",
            )
    return [_summary(key, list(seeds.values())) for key, seeds in groups.items()]


def distances(rows: pa.Table, base: tuple[str, str]) -> list[Summary]:
    """Summaries of every other method's scores minus those of `base`, (method, graph), with the same seed.

    Seeds that one of the two lacks are left out; one or two seeds have no interval. Raises as `summarise` does.
    """
    place, table = ("seed", *GROUP[2:]), rows.to_pylist()
    own = {tuple(row[name] for name in place): row["value"] for row in table if (row["method"], row["graph"]) == base}
    differences = (
        row | {"value": row["value"] - own[where], "ci95": None, "ci_kind": "none"}
        for row in table
        if (row["method"], row["graph"]) != base and (where := tuple(row[name] for name in place)) in own
    )
    return summarise(differences)


def _summary(key: tuple[str, ...], rows: list[Mapping[str, Any]]) -> Summary:
    values = [float(row["value"]) for row in rows]
    interval: tuple[float | None, str] = (None, "none")
    if len(rows) == 1:
        interval = (rows[0]["ci95"], rows[0]["ci_kind"])
    elif len(rows) >= 3:
        interval = (t_half_width(values), "t-seeds")
    method, graph, suite, split, metric = key
    mean = float(np.mean(values))
    return Summary(method, graph, suite, split, metric, mean, *interval, seeds=len(rows), n=int(rows[0]["n"]))
