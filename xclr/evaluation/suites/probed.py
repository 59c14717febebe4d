"""What the suites share that apply the probe of ImageNet's training pictures, as it is, to other pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, Ints, Labels, of_split
from xclr.evaluation.heads import LinearHead


def probe_of(features: Features) -> LinearHead:
    """The head to apply; raises DataError when there is none."""
    if features.probe is None:
        raise DataError("no probe was fitted to ImageNet's training pictures", "set evaluate.roots.imagenet")
    return features.probe


def classes_of(probe: LinearHead) -> Ints:
    """The classes that a head chooses among, [C]."""
    return np.asarray(probe.classes)


def labelled(features: Features, labels: Labels, split: str) -> FeatureSet:
    """The items of a split that have a target; raises DataError when there are none."""
    items = of_split(features.pictures, labels, split, labels.target)
    if not len(items.rows):
        raise DataError(f"no picture of split {split!r} has a class", "check evaluate.roots, or leave the suite out")
    return items


def judgeable(labels: Labels, known: Ints, split: str | None = None) -> tuple[Labels, str | None]:
    """Labels by the targets among `known` alone, and what that leaves of the split's pictures and classes.

    None where it leaves all. Raises DataError where it leaves no picture that has a class.
    """
    rows = np.arange(len(labels.split)) if split is None else np.flatnonzero(labels.split == split)
    before, after = labels.targets.take(rows), labels.targets.among(known).take(rows)
    pictures, left = int((before.lengths > 0).sum()), int((after.lengths > 0).sum())
    classes, there = len(np.unique(before.values)), len(np.unique(after.values))
    if pictures and not left:
        raise DataError(
            f"none of the {classes:,} classes of the pictures is one of those that the probe was fitted to",
            "give evaluate.roots.imagenet the classes that these are, or leave the suite out",
        )
    kept = replace(labels, targets=labels.targets.among(known))
    if there == classes:
        return kept, None
    return kept, f"judged over {there:,} of {classes:,} classes: {left:,} of {pictures:,} pictures"


def mapped(classes: Ints, mapping: Ints) -> Ints:
    """Classes [n] of the probe as classes of another data set, -1 for none.

    Raises DataError for one that the mapping [C] does not know.
    """
    if len(classes) and classes.max() >= len(mapping):
        raise DataError(
            f"the probe knows a class {classes.max()}, the mapping has classes 0 to {len(mapping) - 1}",
            "use the mapping that was published for the data in evaluate.roots.imagenet",
        )
    return np.asarray(mapping[classes])
