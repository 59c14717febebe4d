"""Suite `background`: how much of a group classifier's accuracy rests on the background."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch

from xclr.errors import DataError
from xclr.evaluation.data import FeatureSet, Labels, SuiteResult, of_split, predictions, variant
from xclr.evaluation.linear import fit_head
from xclr.evaluation.score import accuracy_score, mean_score
from xclr.stages import SuiteConfig

SAME, RANDOM = "mixed_same", "mixed_rand"


def background_suite(features: Mapping[str, FeatureSet], labels: Labels, config: SuiteConfig) -> SuiteResult:
    """Fit a head for the groups to rendering "trained" and score it on own-group and on random-group backgrounds.

    top1 on "mixed_same" and on "mixed_rand", and their difference "gap" with a paired bootstrap interval over the
    items; a smaller gap is better. Raises DataError when a rendering is missing or the two do not have equal rows.
    """
    train = of_split(variant(features.get("trained"), "trained"), labels, "train", labels.group)
    same, random = (variant(features.get(name), name) for name in (SAME, RANDOM))
    if not np.array_equal(same.rows, random.rows):
        raise DataError(f"renderings {SAME!r} and {RANDOM!r} have different rows", "run the recipe again")
    head = fit_head(train, labels.group, seed=config.seed)
    target = labels.group[same.rows]
    guesses = {name: head.predict(torch.from_numpy(features[name].vectors)).numpy() for name in (SAME, RANDOM)}
    table = predictions([(name, same.rows, target, guess) for name, guess in guesses.items()], pa.int64())
    if not len(target):
        return SuiteResult([], table)
    scores = [accuracy_score(config, name, target, guess) for name, guess in guesses.items()]
    right = {name: (guess == target).astype(np.float64) for name, guess in guesses.items()}
    return SuiteResult([*scores, mean_score(config, "gap", "gap", right[SAME] - right[RANDOM])], table)
