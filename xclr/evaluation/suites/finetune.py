"""The suite `finetune`: what a backbone that was trained on, with a classifier, says of ImageNet's pictures."""

from __future__ import annotations

import numpy as np

from xclr.evaluation.data import Answers, Features, FeatureSet, Labels, SuiteResult, predictions
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.linear import TOP, accuracies
from xclr.evaluation.suites.probed import labelled

SPLIT = "val"


def finetune_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """Score the logits of split "val", which are the features: top1, top5, and per_class, the mean over classes.

    Raises DataError when no picture of it has a class.
    """
    return scored(labelled(features, labels, SPLIT), labels, config, SPLIT)


def scored(items: FeatureSet, labels: Labels, config: SuiteConfig, split: str) -> SuiteResult:
    """Score logits [n, C] of labelled pictures of a split, a column for each of `labels.numbers`."""
    logits = items.tensor()
    ranked = labels.numbers[np.asarray(logits.topk(min(TOP, logits.shape[1])).indices)]
    answers = Answers(split, items.rows, labels.targets.take(items.rows), ranked[:, 0])
    return SuiteResult(accuracies(config, split, labels.target[items.rows], ranked), predictions([answers]))
