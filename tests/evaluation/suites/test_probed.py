"""What the suites of ImageNet's probe share: the head as it is, the items that count, other classes."""

from dataclasses import replace

import numpy as np
import pytest

from tests.kit.features import coordinate_head, imagenet_like
from xclr.errors import DataError
from xclr.evaluation.data import Ragged
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.imagenet import imagenet_suite
from xclr.evaluation.suites.imagenet9 import imagenet9_suite
from xclr.evaluation.suites.objectnet import objectnet_suite
from xclr.evaluation.suites.probed import labelled, mapped, probe_of
from xclr.evaluation.suites.real import real_suite

CONFIG = SuiteConfig(suite="imagenet", bootstrap=100, seed=0)


@pytest.mark.parametrize("suite", [imagenet_suite, real_suite, imagenet9_suite, objectnet_suite])
def test_no_suite_goes_without_a_probe(suite):
    features, labels = imagenet_like(n=50)
    with pytest.raises(DataError, match="no probe was fitted"):
        suite(features, replace(labels, attribute=labels.target), CONFIG)


def test_the_probe_is_the_one_that_is_given():
    features, _ = imagenet_like(n=50)
    head = coordinate_head(6)
    assert probe_of(replace(features, probe=head)) is head


def test_items_of_a_split_are_those_with_a_class():
    features, labels = imagenet_like(n=50)
    val = np.flatnonzero(labels.split == "val")
    target = labels.target.copy()
    target[val[:3]] = -1
    some = replace(labels, targets=Ragged.single(target))
    assert labelled(features, some, "val").rows.tolist() == val[3:].tolist()
    with pytest.raises(DataError, match="no picture of split 'test' has a class"):
        labelled(features, some, "test")


def test_guesses_are_mapped_and_classes_without_a_partner_are_none():
    mapping = np.array([2, -1, 0, 2])
    assert mapped(np.array([0, 3, 1, 2, 2]), mapping).tolist() == [2, 2, -1, 0, 0]
    with pytest.raises(DataError, match="knows a class 4, the mapping has classes 0 to 3"):
        mapped(np.array([0, 4]), mapping)
