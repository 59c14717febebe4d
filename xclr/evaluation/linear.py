"""Suite `linear`: one probe on the frozen features, the same head on every held-out split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from xclr.errors import DataError
from xclr.evaluation.data import FeatureSet, Ints, Labels, SuiteResult, of_split, predictions, variant
from xclr.evaluation.heads import HeadConfig, LinearHead, fit_linear
from xclr.evaluation.score import Score, accuracy_score, class_mean, mean_score, statistic_score
from xclr.stages import SuiteConfig

HELD_OUT = ("pictures", "concepts", "vendor")


def linear_suite(features: Mapping[str, FeatureSet], labels: Labels, config: SuiteConfig) -> SuiteResult:
    """Fit a linear probe to split "train" of rendering "plain" and score it, not refitted, on each held-out split.

    Metrics: top1, top5 and per_class (the mean of the classes' accuracies). Items without a target are left out;
    items whose class no training picture has are in the denominator, as wrong. Raises DataError without labelled
    training pictures.
    """
    plain = variant(features.get("plain"), "plain")
    head = fit_head(of_split(plain, labels, "train", labels.target), labels.target, seed=config.seed)
    scores, parts = [], []
    for split in HELD_OUT:
        items = of_split(plain, labels, split, labels.target)
        if len(items.rows):
            target = labels.target[items.rows]
            ranked = head.ranked(torch.from_numpy(items.vectors), 5).numpy()
            scores += accuracies(config, split, target, ranked)
            parts.append((split, items.rows, target, ranked[:, 0]))
    return SuiteResult(scores, predictions(parts, pa.int64()))


def fit_head(train: FeatureSet, target: Ints, *, seed: int) -> LinearHead:
    """Fit a linear head to training items, by the target [N] of each row."""
    if not len(train.rows):
        raise DataError("no training picture has a label", "set data.label_column, or leave the suite out")
    labels = torch.from_numpy(target[train.rows])
    return fit_linear(torch.from_numpy(train.vectors), labels, config=HeadConfig(seed=seed))


def accuracies(config: SuiteConfig, split: str, target: Ints, ranked: NDArray[np.int64]) -> list[Score]:
    """top1, top5 and per_class of ranked predictions [n, k], best first, against targets [n]."""
    right = ranked[:, 0] == target
    return [
        accuracy_score(config, split, target, ranked[:, 0]),
        mean_score(config, split, "top5", (ranked[:, :5] == target[:, None]).any(1)),
        statistic_score(config, split, "per_class", class_mean(target, right), len(target)),
    ]
