"""What the suites share that judge a recipe's own pictures by their classes."""

from __future__ import annotations

from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, Ints, Labels, of_split
from xclr.files import NOT_TRAINED, TRAIN


def training(features: Features, labels: Labels) -> FeatureSet:
    """The training pictures that have a class; raises DataError when there are none."""
    items = of_split(features.pictures, labels, TRAIN, labels.target)
    if not len(items.rows):
        raise DataError("no training picture has a label", "set data.label_column, or leave the suite out")
    return items


def held_out(features: Features, labels: Labels) -> tuple[str, FeatureSet]:
    """The split to judge by, and its pictures that have a class; raises as `judged_split` does."""
    split = judged_split(features.pictures.rows, labels)
    return split, of_split(features.pictures, labels, split, labels.target)


def judged_split(rows: Ints, labels: Labels) -> str:
    """The first of NOT_TRAINED that some rows [n] with a class are of; raises DataError when there is none."""
    there = set(labels.split[rows[labels.target[rows] >= 0]].tolist())
    for split in NOT_TRAINED:
        if split in there:
            return split
    raise DataError("no held-out picture has a class", "give more pictures with classes, or leave the suite out")
