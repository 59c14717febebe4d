"""Suite `own-knn`: the class of the nearest training pictures of a recipe's own, without any fitting."""

from __future__ import annotations

from xclr.evaluation.data import Answers, Features, Labels, SuiteResult, of_split, predictions
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.knn import vote
from xclr.evaluation.suites.linear import HELD_OUT, accuracies
from xclr.evaluation.suites.own import training


def own_knn_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """top1, top5 and per_class of each held-out split by the vote of `knn`: K nearest pictures of split "train".

    Pictures without a target are left out; those whose class no training picture has are counted, as wrong. Raises
    DataError without labelled training pictures.
    """
    pictures, target = features.pictures, labels.target
    train = training(features, labels)
    scores, parts = [], []
    for split in HELD_OUT:
        items = of_split(pictures, labels, split, target)
        if len(items.rows):
            ranked = vote(items, train, target[train.rows])
            scores += accuracies(config, split, target[items.rows], ranked)
            parts.append(Answers(split, items.rows, labels.targets.take(items.rows), ranked[:, 0]))
    return SuiteResult(scores, predictions(parts))
