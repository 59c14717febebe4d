"""Suite `imagenet9`: the linear probe where pictures have been given other backgrounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xclr.errors import DataError
from xclr.evaluation.data import Answers, Bools, Features, Ints, Labels, SuiteResult, predictions
from xclr.evaluation.datasets.imagenet9 import VARIANTS
from xclr.evaluation.score import Floats, Score, mean_score, resample_counts
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.linear import best_of
from xclr.evaluation.suites.probed import classes_of, judgeable, labelled, mapped, probe_of

SAME, RANDOM = "mixed_same", "mixed_rand"
BACKGROUND = "_bg"  # in a file's name, what follows the foreground's


def imagenet9_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """top1 of `features.probe` on each variant's split, and "gap", the accuracy of mixed_same minus that of mixed_rand.

    The prediction is the most likely of all classes, as the group that `labels.mapping` gives it; a class without a
    group is wrong. Groups none of whose classes the probe was fitted to are left out. Raises DataError without a probe,
    without pictures, or for a mapping of other classes.
    Source: arXiv 2006.09994.
    """
    there = set(labels.split[features.pictures.rows].tolist())
    probe, scores, answers, right = probe_of(features), [], {}, {}
    known = mapped(classes_of(probe), labels.mapping)
    labels, remark = judgeable(labels, known[known >= 0], SAME)
    for split in (each for each in VARIANTS if each in there):
        items = labelled(features, labels, split)
        targets = labels.targets.take(items.rows)
        guesses = mapped(best_of(probe, items)[:, 0], labels.mapping)
        right[split] = targets.contains(guesses)
        scores.append(mean_score(config, split, "top1", right[split]))
        answers[split] = Answers(split, items.rows, targets, guesses)
    if not right.keys() >= {SAME, RANDOM}:
        raise DataError(f"ImageNet-9 has no pictures of {SAME} or of {RANDOM}", "check evaluate.roots.imagenet9")
    pairs = pairs_of(labels, answers[SAME].rows, answers[RANDOM].rows) if config.paired else None
    scores.append(gap(config, right[SAME], right[RANDOM], pairs))
    return SuiteResult([replace(each, remark=remark) for each in scores], predictions(answers.values()))


def pairs_of(labels: Labels, same: Ints, random: Ints) -> Ints | None:
    """The place among rows `random` [m] of what shows the same foreground as each of rows `same` [n], [n].

    It has the same group and, up to the background's, the same name. None unless each has exactly one.
    """
    place = {_foreground(labels.names[row]): index for index, row in enumerate(random)} if labels.names else {}
    found = [place.get(_foreground(labels.names[row]), -1) for row in same] if place else []
    return np.array(found) if sorted(found) == list(range(len(random))) else None


def _foreground(name: str) -> tuple[str, str]:
    folder, _, file = name.rpartition("/")
    return folder.rpartition("/")[2], file.rpartition(".")[0].partition(BACKGROUND)[0]


def gap(config: SuiteConfig, same: Bools, random: Bools, pairs: Ints | None = None) -> Score:
    """The difference of two accuracies; n: items of the smaller.

    Resampled together with pairs [n], the place among `random` of what shows the same foreground; else each on its own.
    """
    value, n = float(same.mean() - random.mean()), min(len(same), len(random))
    if n < 2:
        return Score(config.suite, "gap", "gap", value, n, None, "none")
    first, second = np.random.SeedSequence(config.seed).generate_state(2).tolist()
    if pairs is not None:
        drawn = _resampled(same.astype(np.float64) - random[pairs], config.bootstrap, first)
    else:
        drawn = _resampled(same, config.bootstrap, first) - _resampled(random, config.bootstrap, second)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Score(config.suite, "gap", "gap", value, n, float(high - low) / 2, "bootstrap")


def _resampled(values: Bools | Floats, resamples: int, seed: int) -> Floats:
    """The means of resamples of items, [resamples]."""
    return np.concatenate([counts @ values / len(values) for counts in resample_counts(len(values), resamples, seed)])
