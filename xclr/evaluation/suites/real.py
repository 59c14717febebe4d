"""Suite `real`: the linear probe on ImageNet's validation pictures, judged by ReaL's lists of labels."""

from __future__ import annotations

from dataclasses import replace

from xclr.evaluation.data import Answers, Features, Labels, SuiteResult, predictions
from xclr.evaluation.score import mean_score
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.linear import best_of
from xclr.evaluation.suites.probed import classes_of, judgeable, labelled, probe_of

SPLIT = "val"


def real_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """top1 of `features.probe` on split "val": right when the prediction is in the picture's list.

    Pictures whose list is empty are in neither numerator nor denominator, nor are classes that the probe was not fitted
    to, where it is of a part of ImageNet. Raises DataError without a probe or without
    pictures that have a list. Source: arXiv 2006.07159.
    """
    probe = probe_of(features)
    labels, remark = judgeable(labels, classes_of(probe), SPLIT)
    items = labelled(features, labels, SPLIT)
    targets, guesses = labels.targets.take(items.rows), best_of(probe, items)[:, 0]
    score = mean_score(config, SPLIT, "top1", targets.contains(guesses))
    return SuiteResult([replace(score, remark=remark)], predictions([Answers(SPLIT, items.rows, targets, guesses)]))
