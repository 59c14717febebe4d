"""Suite `own-few-shot`: how good a linear probe is when few of a recipe's own training pictures have a label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xclr.evaluation.data import Features, Labels, SuiteResult
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.few_shot import PERCENTS, Judged, scored
from xclr.evaluation.suites.own import held_out, training


def own_few_shot_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """The scores of `few-shot` on the held-out pictures, without shares of fewer than one picture a class.

    What is left out is remarked. Raises DataError without labelled pictures to train on or to judge by.
    """
    train, (_, items) = training(features, labels), held_out(features, labels)
    pictures, classes = len(train.rows), len(np.unique(labels.target[train.rows]))
    enough = [percent for percent in PERCENTS if percent * pictures >= 100 * classes]
    result = scored(Judged(train, items), labels, config, enough)
    return replace(
        result, scores=[replace(each, remark=_left_out(enough, pictures, classes)) for each in result.scores]
    )


def _left_out(enough: list[int], pictures: int, classes: int) -> str | None:
    few = ", ".join(f"{percent}%" for percent in PERCENTS if percent not in enough)
    if not few:
        return None
    return f"{few} of {pictures:,} training pictures left out, fewer than one for each of {classes:,} classes"
