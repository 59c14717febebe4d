"""Suite `objectnet`: the linear probe on household things from odd sides and in odd places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from xclr.errors import DataError
from xclr.evaluation.data import Answers, Features, Labels, SuiteResult, predictions
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.linear import best_of, listed_accuracies
from xclr.evaluation.suites.probed import classes_of, judgeable, probe_of


def objectnet_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """top1, top5 and per_class of `features.probe`, which chooses among all classes ("all") or some ("overlap").

    "overlap" are the classes that are the target of any picture. A picture may have several targets, of which any
    counts; classes that the probe was not fitted to are none, and pictures without one are left out. per_class is the
    mean over `labels.attribute`, ObjectNet's own labels. Raises DataError without a probe or without pictures that have
    a target.
    """
    pictures, probe = features.pictures, probe_of(features)
    labels, remark = judgeable(labels, classes_of(probe))
    items = pictures.where(labels.target[pictures.rows] >= 0)
    if not len(items.rows):
        raise DataError("no picture of ObjectNet is of a class of ImageNet", "check evaluate.roots.objectnet")
    targets, attribute = labels.targets.take(items.rows), labels.attribute[items.rows]
    scores, parts = [], []
    for split, head in (("all", probe), ("overlap", probe.only(torch.from_numpy(np.unique(targets.values))))):
        ranked = best_of(head, items)
        scores += listed_accuracies(config, split, targets, attribute, ranked)
        parts.append(Answers(split, items.rows, targets, ranked[:, 0]))
    return SuiteResult([replace(each, remark=remark) for each in scores], predictions(parts))
