"""Whether methods differ on the same items: their answers joined, McNemar's exact test, a paired bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from xclr import schema
from xclr.errors import DataError
from xclr.evaluation.score import Summary, distances

CELLS = 2**21  # of a block of resamples: 16 MB
RESAMPLES, SEED = 10_000, 0
JUDGED = "top1"  # the metric whose answers are right or wrong, one an item
BOOTSTRAP = "paired-bootstrap"
Bools = NDArray[np.bool_]
Method = tuple[str, str]  # method, graph
Key = tuple[str, str, str]  # suite, split, metric
Row = Mapping[str, Any]  # of schema.SCORES
Answers = Mapping[tuple[str, str], Path]  # (checkpoint, suite) -> its table of schema.predictions


@dataclass(frozen=True, eq=False)
class JudgedItems:
    """Answers that are right or wrong: rows int64 [n], each once; targets, a list a row, [n]; right bool [n]."""

    rows: NDArray[np.int64]
    targets: pa.Array[Any]
    right: Bools


class PairedItems(NamedTuple):
    """What two sides made of the same items: right_a and right_b bool [n].

    `alone` rows had one side only, `differing` rows other targets on either side; neither are among the n.
    """

    right_a: Bools
    right_b: Bools
    alone: int
    differing: int


@dataclass(frozen=True)
class Distance:
    """A method's score minus that of another with the same seed, mean over the seeds that both have, as a fraction.

    `ci95` is a half width. One seed: that of the paired bootstrap, and `p` McNemar's, over n items, where the answers
    of both are known (paired-bootstrap). Three seeds or more: Student-t over seeds (t-seeds). Else there is none.
    `note` says what else a reader must know.
    """

    method: str
    graph: str
    suite: str
    split: str
    metric: str
    difference: float
    ci95: float | None
    ci_kind: str
    p: float | None
    n: int
    seeds: int
    note: str = ""

    @property
    def key(self) -> Key:
        """Which score."""
        return self.suite, self.split, self.metric

    def row(self) -> dict[str, Any]:
        """Everything but the note."""
        return {name: value for name, value in asdict(self).items() if name != "note"}


def paired(a: JudgedItems, b: JudgedItems) -> PairedItems:
    """Join two sides by row, sorted by it; the order of a row's targets does not matter."""
    _, at, bt = np.intersect1d(a.rows, b.rows, return_indices=True)
    same = _equal(a.targets.take(pa.array(at)), b.targets.take(pa.array(bt)))
    alone = len(a.rows) + len(b.rows) - 2 * len(at)
    return PairedItems(a.right[at][same], b.right[bt][same], alone, int(np.count_nonzero(~same)))


def _equal(a: pa.Array[Any], b: pa.Array[Any]) -> Bools:
    if a.equals(b):
        return np.ones(len(a), dtype=np.bool_)
    both = zip(a.to_pylist(), b.to_pylist(), strict=True)
    return np.array([sorted(one) == sorted(other) for one, other in both], dtype=np.bool_)


def mcnemar(right_a: Bools, right_b: Bools) -> float:
    """Exact two-sided p of McNemar's test that both sides are right equally often, for right [n] on the same n items.

    The binomial test, against 1/2, of how many of the items that one side alone has right are a's; 1.0 where there are
    none. Raises ValueError when the lengths differ. Source: McNemar, Psychometrika 12, 1947.
    """
    _check(right_a, right_b)
    right_a, right_b = np.asarray(right_a, dtype=np.bool_), np.asarray(right_b, dtype=np.bool_)
    a_alone = int(np.count_nonzero(right_a & ~right_b))
    b_alone = int(np.count_nonzero(right_b & ~right_a))
    if a_alone + b_alone == 0:
        return 1.0
    from scipy.stats import binomtest  # here, because few tables need one

    return float(binomtest(a_alone, a_alone + b_alone, 0.5).pvalue)


def paired_bootstrap(a: NDArray[Any], b: NDArray[Any], *, resamples: int, seed: int) -> tuple[float, float]:
    """Mean of a - b, for a and b [n] on the same n items, and half of its 2.5 to 97.5 percentile range over resamples.

    Items are drawn with replacement, n at a time. A resample's mean is a sum over the distinct differences, each drawn
    a multinomial number of times: right and wrong answers have three, so that n hardly costs. Raises ValueError when
    the lengths differ, or without items or resamples.
    """
    _check(a, b)
    n = len(a)
    if n < 1 or resamples < 1:
        raise ValueError(f"a bootstrap needs items and resamples, not {n} and {resamples}")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    values, times = np.unique(differences, return_counts=True)
    rng, block = np.random.default_rng(seed), max(1, CELLS // len(values))
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    means = np.concatenate([rng.multinomial(n, times / n, size=size) @ values for size in sizes]) / n
    low, high = np.percentile(means, [2.5, 97.5])
    return float(differences.mean()), float(high - low) / 2


def _check(a: NDArray[Any], b: NDArray[Any]) -> None:
    if len(a) != len(b):
        raise ValueError(f"pairs need as many items on both sides, not {len(a)} and {len(b)}")


def distances_of(scores: pa.Table, base: Method, answers: Answers) -> list[Distance]:
    """Every other method's scores (schema.SCORES) minus those of `base`, seed by seed.

    With one seed the answers of both sides are paired, item by item; where any distance has three seeds or more, none
    is, so that one kind of interval stands in a table. Raises DataError as score.summarise does.
    """
    found = [_unpaired(each) for each in distances(scores, base)]
    if any(each.seeds >= 3 for each in found):
        return found
    rows: dict[tuple[Method, Key], dict[int, Row]] = {}
    for row in scores.to_pylist():
        score = (row["method"], row["graph"]), (row["suite"], row["split"], row["metric"])
        rows.setdefault(score, {})[row["seed"]] = row
    read = cache(_read)
    made = []
    for each in found:
        own, other = rows[(each.method, each.graph), each.key], rows[base, each.key]
        both = [(own[seed], other[seed]) for seed in own.keys() & other.keys()]
        single = len(both) == 1 and each.metric == JUDGED
        made.append(_with_pairs(each, both[0], answers, read) if single else each)
    return made


def _unpaired(found: Summary) -> Distance:
    score = found.method, found.graph, found.suite, found.split, found.metric
    return Distance(*score, found.mean, found.ci95, found.ci_kind, None, found.n, found.seeds)


def _read(path: Path) -> pa.Table:
    return schema.read(path, schema.predictions(pa.int64()), ["row_id", "split", "target", "right"])


def _with_pairs(
    found: Distance, sides: tuple[Row, Row], answers: Answers, read: Callable[[Path], pa.Table]
) -> Distance:
    """The distance of two score rows with what their pairs tell, or with a note that says why there are none."""
    judged = []
    for row in sides:
        whose = f"no interval where the answers of {row['method']}"
        path = answers.get((row["checkpoint"], row["suite"]))
        if path is None:
            return replace(found, note=f"{whose} are not in the store")
        try:
            judged.append(_of_split(read(path), row["split"]))
        except DataError:
            return replace(found, note=f"{whose} were written by another version")
        right = judged[-1].right
        if len(right) and not np.isclose(right.mean(), row["value"], rtol=0, atol=1e-6):
            return replace(found, note=f"{whose} do not add up to the score")
    if not all(len(each.right) for each in judged):  # a score that is not of single answers
        return found
    return _of_pairs(found, paired(*judged))


def _of_split(table: pa.Table, split: str) -> JudgedItems:
    table = table.filter(pc.and_(pc.equal(table["split"], split), pc.is_valid(table["right"])))
    right = table["right"].to_numpy().astype(np.bool_)
    return JudgedItems(table["row_id"].to_numpy(), table["target"].combine_chunks(), right)


def _of_pairs(found: Distance, pairs: PairedItems) -> Distance:
    where, n = f"{found.suite} {found.split}", len(pairs.right_a)
    if not n or pairs.differing > n:  # chance makes some targets of other pictures equal
        return replace(found, note=f"{where}: no interval, the two judged other pictures")
    left_out = {"one side alone has": pairs.alone, "have other targets on either side": pairs.differing}
    note = "; ".join(f"{where}: left out {count:,} answers that {why}" for why, count in left_out.items() if count)
    difference, half = paired_bootstrap(pairs.right_a, pairs.right_b, resamples=RESAMPLES, seed=SEED)
    p = mcnemar(pairs.right_a, pairs.right_b)
    return replace(found, difference=difference, ci95=half, ci_kind=BOOTSTRAP, p=p, n=n, note=note)
