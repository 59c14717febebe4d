import numpy as np
import pytest

from tests.kit.features import coordinate_head, votes
from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, Labels, Ragged
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.objectnet import objectnet_suite

CONFIG = SuiteConfig(suite="objectnet", bootstrap=100, seed=0)


def judged(ranked, targets, attribute, classes=10):
    features = Features(FeatureSet(np.arange(len(ranked)), votes(ranked, classes)), coordinate_head(classes))
    labels = Labels(np.full(len(ranked), "test"), Ragged.of(targets), attribute=np.array(attribute))
    result = objectnet_suite(features, labels, CONFIG)
    return {(each.split, each.metric): each.value for each in result.scores}, result


def test_any_target_counts_among_all_classes_and_among_those_that_occur():
    ranked = [[8, 1, 2], [2, 8], [9, 7, 5, 4, 3, 0], [1, 2]]
    targets = [[1, 6], [2], [0], []]
    found, result = judged(ranked, targets, [0, 0, 1, 2])
    assert found == {
        ("all", "top1"): 1 / 3, ("all", "top5"): 2 / 3, ("all", "per_class"): pytest.approx((1 / 2 + 0) / 2),
        ("overlap", "top1"): 1.0, ("overlap", "top5"): 1.0, ("overlap", "per_class"): 1.0,
    }  # fmt: skip
    assert {each.n for each in result.scores} == {3}
    answers = result.predictions.to_pandas()
    assert answers[answers.split == "all"].prediction.tolist() == [8, 2, 9]
    assert answers[answers.split == "overlap"].prediction.tolist() == [1, 2, 0]
    assert answers.right.tolist() == [False, True, False, True, True, True]


def test_the_mean_over_objectnets_own_labels_weighs_each_once():
    found, _ = judged([[0], [0], [0], [1]], [[0, 3], [0, 3], [0, 3], [2]], [5, 5, 5, 9])
    assert found["all", "top1"] == 3 / 4
    assert found["all", "per_class"] == 1 / 2


def test_data_without_classes_of_imagenet_are_refused():
    with pytest.raises(DataError, match="no picture of ObjectNet"):
        judged([[0]], [[]], [0])
