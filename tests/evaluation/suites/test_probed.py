"""What the suites of ImageNet's probe share: the head as it is, the items that count, other classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.kit.features import coordinate_head, imagenet_like
from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, Labels, Ragged
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.imagenet import imagenet_suite
from xclr.evaluation.suites.imagenet9 import imagenet9_suite
from xclr.evaluation.suites.objectnet import objectnet_suite
from xclr.evaluation.suites.probed import judgeable, labelled, mapped, probe_of
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


NUMBERS = np.array([3, 40, 41, 900])  # of the classes that a part of ImageNet has


@pytest.fixture
def perfect():
    """Features and the head of a perfect probe for a part of ImageNet, of pictures of the four and of two others."""
    shown = np.array([3, 40, 41, 900, 7, 500] * 5)
    vectors = np.zeros((len(shown), 1000), dtype=np.float16)
    vectors[np.arange(len(shown)), shown] = 1
    return Features(FeatureSet(np.arange(len(shown)), vectors), coordinate_head(1000).only(torch.from_numpy(NUMBERS)))


def test_a_part_of_imagenet_is_judged_over_the_classes_that_are_there(perfect):
    shown = perfect.pictures.vectors.argmax(1)
    split = np.full(len(shown), "val")
    lists = [[each, 7] if each == 40 else [each] for each in shown]
    real = real_suite(perfect, Labels(split, Ragged.of([*lists[:-6], [], *lists[-5:]])), CONFIG)
    (score,) = real.scores
    assert (score.value, score.n) == (1.0, 19)
    assert score.remark == "judged over 4 of 6 classes: 19 of 29 pictures"
    assert real.predictions["target"].to_pylist()[1] == [40]

    own = np.searchsorted([3, 7, 40, 41, 500, 900], shown)
    found = objectnet_suite(perfect, Labels(split, Ragged.of(lists), attribute=own), CONFIG).scores
    assert {each.value for each in found} == {1.0} and {each.n for each in found} == {20}
    assert {each.remark for each in found} == {"judged over 4 of 6 classes: 20 of 30 pictures"}

    mapping = np.full(1000, -1)
    mapping[[3, 40, 41, 7, 500, 900]] = [0, 1, 1, 2, 3, -1]
    twice = Features(FeatureSet(np.arange(60), np.tile(perfect.pictures.vectors, (2, 1))), perfect.probe)
    groups = np.tile(mapping[shown], 2)
    variants = np.repeat(["mixed_same", "mixed_rand"], 30)
    found = imagenet9_suite(twice, Labels(variants, Ragged.single(groups), mapping=mapping), CONFIG).scores
    assert [each.value for each in found] == [1.0, 1.0, 0.0] and {each.n for each in found} == {15}
    assert {each.remark for each in found} == {"judged over 2 of 4 classes: 15 of 25 pictures"}


def test_with_all_classes_there_is_nothing_to_remark_and_with_none_nothing_to_judge(perfect):
    shown = perfect.pictures.vectors.argmax(1)
    labels = Labels(np.full(len(shown), "val"), Ragged.single(np.where(np.isin(shown, NUMBERS), shown, -1)))
    assert judgeable(labels, NUMBERS)[1] is None
    with pytest.raises(DataError, match="none of the 4 classes of the pictures is one of those"):
        judgeable(labels, np.array([1, 2]))


def test_guesses_are_mapped_and_classes_without_a_partner_are_none():
    mapping = np.array([2, -1, 0, 2])
    assert mapped(np.array([0, 3, 1, 2, 2]), mapping).tolist() == [2, 2, -1, 0, 0]
    with pytest.raises(DataError, match="knows a class 4, the mapping has classes 0 to 3"):
        mapped(np.array([0, 4]), mapping)
