from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import average_precision_score

from tests.kit.features import emoji_like
from xclr import schema
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.keywords import (
    average_precision,
    common_tags,
    indicators,
    keyword_scores,
    keywords_suite,
    mean_precision,
)

CONFIG = SuiteConfig(suite="keywords", bootstrap=100, seed=0)


@given(
    arrays.arrays(np.bool_, 12),
    arrays.arrays(np.int64, 12, elements=st.integers(0, 4)),  # many ties
    arrays.arrays(np.int64, (3, 12), elements=st.integers(0, 3)),
)
@settings(max_examples=150, deadline=None)
def test_average_precision_is_sklearns_with_sample_weights(truth, found, counts):
    truth[0] = True
    values = average_precision(truth, found.astype(float))(counts.astype(float))
    for value, weight in zip(values, counts, strict=True):
        if weight[truth].sum():
            expected = average_precision_score(truth, found, sample_weight=weight)
            assert value == pytest.approx(expected)
        else:
            assert np.isnan(value)


def test_a_keyword_without_drawn_positives_is_left_out_of_the_mean():
    truth = np.array([[True, False], [False, True], [False, False]])
    found = np.array([[1.0, 0.0], [0.5, 0.1], [0.0, 0.2]])
    statistic = mean_precision(truth, found)
    assert statistic(np.array([[1.0, 1, 1], [3, 0, 0]])) == pytest.approx([(1 + 1 / 2) / 2, 1])


def test_common_tags_count_pictures_and_indicators_mark_them():
    tags = [("cat", "cat", "pet"), ("dog", "pet"), ("pet",), ("dog",)]
    assert common_tags(tags, np.array([0, 1, 2]), at_least=2) == ["pet"]
    assert common_tags(tags, np.array([0, 1, 3]), at_least=1) == ["cat", "dog", "pet"]
    marked = indicators(tags, np.array([3, 0]), ["dog", "pet"])
    assert marked.tolist() == [[True, False], [False, True]]


def test_keywords_with_few_positives_are_left_out():
    rng = np.random.default_rng(0)
    truth, found = np.zeros((50, 2), dtype=bool), rng.random((50, 2))
    truth[:5, 0] = truth[:4, 1] = True
    (score,) = keyword_scores(CONFIG, "concepts", truth, found)
    assert score.value == pytest.approx(average_precision_score(truth[:, 0], found[:, 0]))
    assert (score.metric, score.n, score.ci_kind) == ("map", 50, "bootstrap")
    assert score.ci95 > 0
    assert keyword_scores(CONFIG, "concepts", truth[:, 1:], found[:, 1:]) == []


def test_keywords_of_separable_classes_are_found():
    features, labels = emoji_like(n=800)
    result = keywords_suite(features, labels, CONFIG)
    assert [each.split for each in result.scores] == ["concepts", "pictures"]
    assert min(each.value for each in result.scores) > 0.8
    assert [each.n for each in result.scores] == [(labels.split == name).sum() for name in ("concepts", "pictures")]
    for answer in result.predictions.to_pylist():
        assert set(answer["target"]) == set(labels.tags[answer["row_id"]])
        assert answer["prediction"] in answer["target"]
        assert answer["right"] is None


def test_the_best_keyword_is_the_one_that_scores_highest():
    features, labels = emoji_like(n=800)
    only = replace(labels, tags=tuple(words[:1] for words in labels.tags))
    table = keywords_suite(features, only, CONFIG).predictions
    assert schema.check(table, schema.predictions(pa.string())) is table
    right = [answer["prediction"] in answer["target"] for answer in table.to_pylist()]
    assert np.mean(right) > 0.9


def test_held_out_tags_change_no_head():
    features, labels = emoji_like(n=800)
    tags = tuple(
        words if split == "train" else ("all",) for words, split in zip(labels.tags, labels.split, strict=True)
    )
    changed = replace(labels, tags=tags)
    before, after = (keywords_suite(features, each, CONFIG).predictions for each in (labels, changed))
    assert before["prediction"] == after["prediction"]
    assert before["target"] != after["target"]


def test_data_without_common_keywords_have_no_score():
    features, labels = emoji_like(n=100)
    rare = replace(labels, tags=tuple((str(row),) for row in range(100)))
    result = keywords_suite(features, rare, CONFIG)
    assert (result.scores, result.predictions.num_rows) == ([], 0)
