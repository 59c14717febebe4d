"""What the suites of own pictures make of features: which they judge by, and which shares of labels they try."""

from dataclasses import replace

import numpy as np
import pytest

from tests.kit.features import imagenet_like
from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, Ragged
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.few_shot import few_shot_suite
from xclr.evaluation.suites.own import held_out
from xclr.evaluation.suites.own_few_shot import own_few_shot_suite
from xclr.evaluation.suites.own_finetune import own_finetune_suite
from xclr.evaluation.suites.own_zero_shot import own_zero_shot_suite
from xclr.files import NOT_TRAINED
from xclr.recipe import ProbeConfig

PROBE = ProbeConfig(solver="ridge", weight_decays=(1e-2,))


def config_of(suite):
    return SuiteConfig(suite=suite, bootstrap=100, seed=0, probe=PROBE)


@pytest.mark.parametrize("split", NOT_TRAINED)
def test_pictures_are_judged_by_the_first_split_that_was_held_out(split):
    features, labels = imagenet_like(n=200)
    later = NOT_TRAINED[NOT_TRAINED.index(split) + 1 :]
    held = np.flatnonzero(labels.split == "val")
    names = np.full(200, "train", dtype="<U10")
    names[held] = [(split, *later)[each % (1 + len(later))] for each in range(len(held))]
    found, items = held_out(features, replace(labels, split=names))
    assert found == split and items.rows.tolist() == np.flatnonzero(names == split).tolist()


def test_a_split_without_classes_is_passed_over_and_none_at_all_is_an_error():
    features, labels = imagenet_like(n=200)
    names = np.where(labels.split == "train", "train", np.where(np.arange(200) % 2, "pictures", "test"))
    target = np.where(names == "pictures", -1, labels.target)
    assert held_out(features, replace(labels, split=names, targets=Ragged.single(target)))[0] == "test"
    nobody = replace(labels, split=names, targets=Ragged.single(np.where(names == "train", target, -1)))
    for suite in (own_few_shot_suite, own_zero_shot_suite, own_finetune_suite):
        with pytest.raises(DataError, match="no held-out picture has a class"):
            suite(features, nobody, config_of("own-few-shot"))
    with pytest.raises(DataError, match="no training picture has a label"):
        own_few_shot_suite(features, replace(labels, split=np.full(200, "pictures")), config_of("own-few-shot"))


@pytest.mark.parametrize(
    ("pictures", "classes", "tried"),
    [(800, 8, [1, 2, 5, 10, 25, 100]), (799, 8, [2, 5, 10, 25, 100]), (80, 8, [10, 25, 100]), (8, 8, [100])],
)
def test_shares_of_fewer_than_one_picture_a_class_are_left_out_and_the_others_are_few_shots(pictures, classes, tried):
    rng, total = np.random.default_rng(0), pictures + 40
    target = np.arange(total) % classes
    vectors = rng.normal(size=(classes, 6))[target] + 0.8 * rng.normal(size=(total, 6))
    features = Features(FeatureSet(np.arange(total), vectors.astype(np.float16)))
    _, labels = imagenet_like(n=total)
    labels = replace(labels, split=np.where(np.arange(total) < pictures, "train", "val"), targets=Ragged.single(target))
    own = own_few_shot_suite(features, labels, config_of("own-few-shot")).scores
    assert [each.split for each in own] == [f"{percent}-percent" for percent in tried]
    theirs = {each.split: each for each in few_shot_suite(features, labels, config_of("few-shot")).scores}
    for each in own:
        assert replace(each, suite="few-shot", remark=None) == theirs[each.split]
        assert (each.remark is None) == (len(tried) == 6)
    if len(tried) < 6:
        assert own[0].remark.startswith("1%") and f"{pictures} training pictures left out" in own[0].remark
