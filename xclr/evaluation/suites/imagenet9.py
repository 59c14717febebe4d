"""Suite `imagenet9`: the linear probe where pictures have been given other backgrounds."""

from __future__ import annotations

import numpy as np

from xclr.errors import DataError
from xclr.evaluation.data import Answers, Bools, Features, Labels, SuiteResult, predictions
from xclr.evaluation.datasets.imagenet9 import VARIANTS
from xclr.evaluation.score import Floats, Score, mean_score, resample_counts
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.linear import best_of
from xclr.evaluation.suites.probed import labelled, mapped, probe_of

SAME, RANDOM = "mixed_same", "mixed_rand"


def imagenet9_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """top1 of `features.probe` on each variant's split, and "gap", the accuracy of mixed_same minus that of mixed_rand.

    The prediction is the most likely of all classes, as the group that `labels.mapping` gives it; a class without a
    group is wrong. Raises DataError without a probe, without pictures, or for a mapping of other classes.
    Source: arXiv 2006.09994.
    """
    there = set(labels.split[features.pictures.rows].tolist())
    probe, scores, parts, right = probe_of(features), [], [], {}
    for split in (each for each in VARIANTS if each in there):
        items = labelled(features, labels, split)
        targets = labels.targets.take(items.rows)
        guesses = mapped(best_of(probe, items)[:, 0], labels.mapping)
        right[split] = targets.contains(guesses)
        scores.append(mean_score(config, split, "top1", right[split]))
        parts.append(Answers(split, items.rows, targets, guesses))
    if not right.keys() >= {SAME, RANDOM}:
        raise DataError(f"ImageNet-9 has no pictures of {SAME} or of {RANDOM}", "check evaluate.roots.imagenet9")
    return SuiteResult([*scores, gap(config, right[SAME], right[RANDOM])], predictions(parts))


def gap(config: SuiteConfig, same: Bools, random: Bools) -> Score:
    """The difference of two accuracies over different pictures, each resampled on its own; n: items of the smaller."""
    value, n = float(same.mean() - random.mean()), min(len(same), len(random))
    if n < 2:
        return Score(config.suite, "gap", "gap", value, n, None, "none")
    first, second = np.random.SeedSequence(config.seed).generate_state(2).tolist()
    drawn = _resampled(same, config.bootstrap, first) - _resampled(random, config.bootstrap, second)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Score(config.suite, "gap", "gap", value, n, float(high - low) / 2, "bootstrap")


def _resampled(right: Bools, resamples: int, seed: int) -> Floats:
    """The accuracies of resamples of items, [resamples]."""
    return np.concatenate([counts @ right / len(right) for counts in resample_counts(len(right), resamples, seed)])
