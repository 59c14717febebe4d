from dataclasses import replace

import numpy as np
import pytest

from tests.kit.features import coordinate_head, imagenet_like, votes
from xclr.evaluation.data import Features, FeatureSet, Labels, Ragged, of_split
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.imagenet import imagenet_suite
from xclr.evaluation.suites.linear import fit_head

CONFIG = SuiteConfig(suite="imagenet", bootstrap=100, seed=0)


def test_known_answers():
    vectors = votes([[0, 1], [1, 0], [5, 4, 3, 2, 1, 0], [5, 4, 3, 2, 1, 0], [2], [2]], classes=8)
    labels = Labels(np.array(["val"] * 5 + ["train"]), Ragged.single(np.array([0, 0, 1, 0, -1, 2])))
    features = Features(FeatureSet(np.arange(6), vectors), coordinate_head(8))
    result = imagenet_suite(features, labels, CONFIG)
    found = {each.metric: each.value for each in result.scores}
    assert found == {"top1": 1 / 4, "top5": 3 / 4, "per_class": pytest.approx((1 / 3 + 0) / 2)}
    assert {(each.suite, each.split, each.n, each.ci_kind) for each in result.scores} == {
        ("imagenet", "val", 4, "bootstrap")
    }
    assert result.predictions.to_pylist()[2] == {
        "row_id": 2, "split": "val", "target": [1], "prediction": 5, "right": False,
    }  # fmt: skip


def test_the_probe_is_applied_and_not_fitted_again():
    """With the training pictures gone, and the labels of the others turned, its answers stay as they are."""
    features, labels = imagenet_like(spread=2.0)
    head = fit_head(of_split(features.pictures, labels, "train"), labels.target, CONFIG)
    probed = replace(features, probe=head)
    result = imagenet_suite(probed, labels, CONFIG)
    assert 0.6 < result.scores[0].value < 1
    turned = replace(labels, targets=Ragged.single((labels.target + 1) % 8))
    alone = replace(probed, pictures=of_split(features.pictures, labels, "val"))
    other = imagenet_suite(alone, turned, CONFIG)
    assert other.predictions["prediction"] == result.predictions["prediction"]
    assert other.scores[0].value < 0.3
