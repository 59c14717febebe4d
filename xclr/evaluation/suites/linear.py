"""Suite `linear`: one probe on the frozen features, the same head on every held-out split."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from xclr.errors import DataError
from xclr.evaluation.data import Answers, Features, FeatureSet, Ints, Labels, Ragged, SuiteResult, of_split, predictions
from xclr.evaluation.heads import LinearHead, fit_linear
from xclr.evaluation.probe import head_config
from xclr.evaluation.score import Score, class_mean, mean_score, statistic_score
from xclr.evaluation.stages import SuiteConfig

HELD_OUT = ("pictures", "concepts", "vendor")
TOP = 5


def linear_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """Fit a linear probe to split "train" and score it, not refitted, on each held-out split.

    Metrics: top1, top5 and per_class (the mean of the classes' accuracies). Items without a target are left out;
    items whose class no training picture has are in the denominator, as wrong. Raises DataError without labelled
    training pictures.
    """
    pictures, target = features.pictures, labels.target
    head = fit_head(of_split(pictures, labels, "train", target), target, config)
    scores, parts = [], []
    for split in HELD_OUT:
        items = of_split(pictures, labels, split, target)
        if len(items.rows):
            ranked = best_of(head, items)
            scores += accuracies(config, split, target[items.rows], ranked)
            parts.append(Answers(split, items.rows, labels.targets.take(items.rows), ranked[:, 0]))
    return SuiteResult(scores, predictions(parts))


def fit_head(train: FeatureSet, target: Ints, config: SuiteConfig) -> LinearHead:
    """Fit a linear head as config.probe says to training items, by the target [N] of each row.

    Raises DataError without items.
    """
    if not len(train.rows):
        raise DataError("no training picture has a label", "set data.label_column, or leave the suite out")
    labels = torch.from_numpy(target[train.rows])
    return fit_linear(
        torch.from_numpy(train.vectors), labels, config=head_config(config.probe, config.seed, crossed=config.crossed)
    )


def best_of(head: LinearHead, items: FeatureSet, k: int = TOP) -> Ints:
    """The min(k, C) most likely classes of each item, best first, [n, min(k, C)]."""
    return np.asarray(head.ranked(torch.from_numpy(items.vectors), k))


def accuracies(config: SuiteConfig, split: str, target: Ints, ranked: NDArray[np.int64]) -> list[Score]:
    """top1, top5 and per_class of ranked predictions [n, k], best first, against targets [n]."""
    return listed_accuracies(config, split, Ragged.single(target), target, ranked)


def listed_accuracies(
    config: SuiteConfig, split: str, targets: Ragged, classes: Ints, ranked: NDArray[np.int64]
) -> list[Score]:
    """The same where each item has several targets; per_class is the mean over its classes [n]."""
    found = np.stack([targets.contains(guesses) for guesses in ranked[:, :TOP].T], axis=1)
    return [
        mean_score(config, split, "top1", found[:, 0]),
        mean_score(config, split, "top5", np.asarray(found.any(1))),
        statistic_score(config, split, "per_class", class_mean(classes, found[:, 0]), len(classes)),
    ]
