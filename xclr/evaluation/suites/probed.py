"""What the suites share that apply the probe of ImageNet's training pictures, as it is, to other pictures."""

from __future__ import annotations

import numpy as np

from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, Ints, Labels, of_split
from xclr.evaluation.heads import LinearHead


def probe_of(features: Features) -> LinearHead:
    """The head to apply; raises DataError when there is none."""
    if features.probe is None:
        raise DataError("no probe was fitted to ImageNet's training pictures", "set evaluate.roots.imagenet")
    return features.probe


def labelled(features: Features, labels: Labels, split: str) -> FeatureSet:
    """The items of a split that have a target; raises DataError when there are none."""
    items = of_split(features.pictures, labels, split, labels.target)
    if not len(items.rows):
        raise DataError(f"no picture of split {split!r} has a class", "check evaluate.roots, or leave the suite out")
    return items


def mapped(guesses: Ints, mapping: Ints) -> Ints:
    """Guesses [n] among the classes of the probe as classes of another data set, -1 for none.

    Raises DataError for a guess that the mapping [C] does not know.
    """
    if len(guesses) and guesses.max() >= len(mapping):
        raise DataError(
            f"the probe knows a class {guesses.max()}, the mapping has classes 0 to {len(mapping) - 1}",
            "use the mapping that was published for the data in evaluate.roots.imagenet",
        )
    return np.asarray(mapping[guesses])
