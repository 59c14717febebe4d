"""Suite `imagenet`: the linear probe on ImageNet's validation pictures."""

from __future__ import annotations

from xclr.evaluation.data import Answers, Features, Labels, SuiteResult, predictions
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.linear import accuracies, best_of
from xclr.evaluation.suites.probed import labelled, probe_of

SPLIT = "val"


def imagenet_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """top1, top5 and per_class (the mean of the classes' accuracies) of `features.probe` on split "val".

    Pictures without a target are left out. Raises DataError without a probe or without such pictures.
    """
    items = labelled(features, labels, SPLIT)
    ranked, targets = best_of(probe_of(features), items), labels.targets.take(items.rows)
    scores = accuracies(config, SPLIT, targets.first, ranked)
    return SuiteResult(scores, predictions([Answers(SPLIT, items.rows, targets, ranked[:, 0])]))
