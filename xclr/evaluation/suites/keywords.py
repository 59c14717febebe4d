"""Suite `keywords`: how well a ridge head on the frozen features finds the pictures of a keyword."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.metrics import average_precision_score

from xclr import schema
from xclr.evaluation.data import Features, Ints, Labels, SuiteResult, of_split
from xclr.evaluation.heads import fit_ridge
from xclr.evaluation.score import Floats, Score, Statistic, bootstrap_interval
from xclr.evaluation.stages import SuiteConfig

SPLITS = ("concepts", "pictures")
MIN_TRAINING = 60  # training pictures of a keyword
MIN_POSITIVES = 5  # pictures of a keyword in the split
ANSWERS = schema.predictions(pa.string())
Truth = NDArray[np.bool_]


def keywords_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """Mean average precision over keywords (metric "map") of a ridge head fitted to split "train".

    Keywords have at least MIN_TRAINING training pictures and at least MIN_POSITIVES in the evaluated split. The
    interval resamples items and recomputes every keyword's average precision; n is the number of items. A split
    without such a keyword has no score. Predictions: a picture's keywords and the one that scores best, neither right
    nor wrong.
    """
    train = of_split(features.pictures, labels, "train")
    words = common_tags(labels.tags, train.rows, at_least=MIN_TRAINING)
    if not words:
        return SuiteResult([], ANSWERS.empty_table())
    targets = torch.from_numpy(indicators(labels.tags, train.rows, words))
    head = fit_ridge(torch.from_numpy(train.vectors), targets, seed=config.seed)
    scores, parts = [], []
    for split in SPLITS:
        items = of_split(features.pictures, labels, split)
        found = head.scores(torch.from_numpy(items.vectors)).numpy()
        truth = indicators(labels.tags, items.rows, words)
        scores += keyword_scores(config, split, truth, found)
        parts.append(
            _answers(
                split, items.rows, [_named(words, row) for row in truth], [words[best] for best in found.argmax(1)]
            )
        )
    return SuiteResult(scores, pa.concat_tables(parts))


def _answers(split: str, rows: Ints, given: list[list[str]], best: list[str]) -> pa.Table:
    return pa.table([rows, [split] * len(rows), given, best, pa.nulls(len(rows), pa.bool_())], schema=ANSWERS)


def common_tags(tags: Sequence[Sequence[str]], rows: Ints, *, at_least: int) -> list[str]:
    """The tags that at least so many of the rows have, sorted."""
    counts = Counter(tag for row in rows for tag in set(tags[row]))
    return sorted(tag for tag, count in counts.items() if count >= at_least)


def indicators(tags: Sequence[Sequence[str]], rows: Ints, words: Sequence[str]) -> Truth:
    """bool [n, T]: which of the words each row has."""
    column = {word: index for index, word in enumerate(words)}
    truth = np.zeros((len(rows), len(words)), dtype=np.bool_)
    for index, row in enumerate(rows):
        truth[index, [column[tag] for tag in tags[row] if tag in column]] = True
    return truth


def keyword_scores(config: SuiteConfig, split: str, truth: Truth, found: Floats) -> list[Score]:
    """The "map" of scores found [n, T] against truth [n, T] over keywords with enough positives; none, no score."""
    tested = truth.sum(0) >= MIN_POSITIVES
    truth, found = truth[:, tested], found[:, tested]
    if not tested.any():
        return []
    value = float(np.mean([average_precision_score(*column) for column in zip(truth.T, found.T, strict=True)]))
    statistic = mean_precision(truth, found)
    half = bootstrap_interval(statistic, len(truth), resamples=config.bootstrap, seed=config.seed)
    return [Score(config.suite, split, "map", value, len(truth), half, "bootstrap")]


def mean_precision(truth: Truth, found: Floats) -> Statistic:
    """The statistic mean_t AP_t of resampled items, for truth [n, T] and scores found [n, T].

    A keyword that a resample left without positives is left out of its mean.
    """
    statistics = [average_precision(*column) for column in zip(truth.T, found.T, strict=True)]

    def statistic(counts: Floats) -> Floats:
        counts = np.ascontiguousarray(counts.T).T  # items first in memory: each keyword sums over them
        values = np.stack([each(counts) for each in statistics])  # [T, r]
        known = ~np.isnan(values)
        mean: Floats = np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1)
        return mean

    return statistic


def average_precision(truth: NDArray[np.bool_], found: Floats) -> Statistic:
    """The statistic AP = sum_i w_i y_i P(found_i) / sum_i w_i y_i of resampled items, NaN without positives.

    w_i is how often item i was drawn, y = truth [n], and P(s) the weighted share of positives among items that
    score at least s: scikit-learn's average_precision_score with sample_weight, for all resamples at once.
    """
    order = np.argsort(-found, kind="stable")
    falling = -found[order]
    positive = np.flatnonzero(truth[order])
    last = np.searchsorted(falling, falling[positive], side="right") - 1  # of the items that score the same
    last_positive = np.searchsorted(positive, last, side="right") - 1
    ends, step = np.unique(last, return_inverse=True)
    steps = np.searchsorted(ends, np.arange(last[-1] + 1))  # item -> the first threshold that lets it in
    members = csr_array((np.ones(len(steps)), (steps, order[: len(steps)])), shape=(len(ends), len(found)))

    def statistic(counts: Floats) -> Floats:
        hits = counts.T[order[positive]]  # [P, r]
        drawn = (members @ counts.T).cumsum(0)[step]
        precision = hits.cumsum(0)[last_positive] / np.maximum(drawn, 1)
        total = hits.sum(0)
        values: Floats = (hits * precision).sum(0) / np.where(total > 0, total, np.nan)
        return values

    return statistic


def _named(words: Sequence[str], truth: NDArray[np.bool_]) -> list[str]:
    return [word for word, given in zip(words, truth, strict=True) if given]
