"""Suite `mit-states`: two linear probes on half of the pictures, one for things and one for their states."""

from __future__ import annotations

import numpy as np

from xclr.errors import DataError
from xclr.evaluation.data import Answers, Bools, Features, Ints, Labels, Ragged, SuiteResult, predictions
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.linear import accuracies, best_of, fit_head


def mit_states_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """top1, top5 and per_class of a probe for the objects and of one for the attributes (splits of these names).

    Each is fitted to one half of the pictures that have such a label and scored on the other, halved at random by
    `halves`. Raises DataError when there is no class of two pictures.
    """
    scores, parts = [], []
    for split, classes in (("objects", labels.target), ("attributes", labels.attribute)):
        known = features.pictures.where(classes[features.pictures.rows] >= 0)
        held_out = halves(classes[known.rows], config.seed)
        if not held_out.any():
            raise DataError(f"MIT-States has no two pictures of one of its {split}", "check evaluate.roots.mit-states")
        head, items = fit_head(known.where(~held_out), classes, config), known.where(held_out)
        target, ranked = classes[items.rows], best_of(head, items)
        scores += accuracies(config, split, target, ranked)
        parts.append(Answers(split, items.rows, Ragged.single(target), ranked[:, 0]))
    return SuiteResult(scores, predictions(parts))


def halves(classes: Ints, seed: int) -> Bools:
    """Which of n pictures are held out, by their classes [n]: a random half of those whose class has two or more.

    Each of these classes has pictures in both halves, as many in one as in the other or one more; the only picture of
    a class is never held out.
    """
    order = np.random.default_rng(seed).permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    _, place, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    order = order[sizes[place[order]] > 1]
    held_out = np.zeros(len(classes), dtype=np.bool_)
    held_out[order[1::2]] = True
    return held_out
