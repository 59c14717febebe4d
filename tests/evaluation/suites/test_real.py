import numpy as np
import pytest

from tests.kit.features import coordinate_head, votes
from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, Labels, Ragged
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.real import real_suite

CONFIG = SuiteConfig(suite="real", bootstrap=100, seed=0)


def judged(lists, guesses, splits=None):
    vectors = votes([[guess] for guess in guesses], classes=8)
    features = Features(FeatureSet(np.arange(len(lists)), vectors), coordinate_head(8))
    return real_suite(features, Labels(np.array(splits or ["val"] * len(lists)), Ragged.of(lists)), CONFIG)


def test_any_label_of_the_list_is_right_and_empty_lists_do_not_count():
    result = judged([[3, 5], [5], [], [1, 2, 7], [0]], [5, 3, 3, 1, 4])
    (score,) = result.scores
    assert (score.split, score.metric, score.n, score.value) == ("val", "top1", 4, 2 / 4)
    answers = result.predictions.to_pylist()
    assert [each["row_id"] for each in answers] == [0, 1, 3, 4]
    assert [each["right"] for each in answers] == [True, False, True, False]
    assert answers[2]["target"] == [1, 2, 7]


def test_pictures_of_other_splits_do_not_count():
    assert judged([[3], [4], [5]], [3, 3, 3], ["train", "val", "val"]).scores[0].value == 0


def test_lists_that_are_all_empty_are_refused():
    with pytest.raises(DataError, match="no picture of split 'val' has a class"):
        judged([[], []], [1, 2])
