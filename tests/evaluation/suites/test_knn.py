from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from tests.kit.features import imagenet_like
from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, Ragged, of_split
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.knn import knn_suite, vote

CONFIG = SuiteConfig(suite="knn", bootstrap=100, seed=0)


def test_the_vote_is_that_of_scikit_learn():
    features, labels = imagenet_like(n=500, classes=9, spread=4.0)
    train, items = (of_split(features.pictures, labels, split) for split in ("train", "val"))
    unit = [each.vectors.astype(np.float64) for each in (train, items)]
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in unit]
    peer = KNeighborsClassifier(20, weights=lambda distances: np.exp((1 - distances**2 / 2) / 0.07))
    peer.fit(unit[0], labels.target[train.rows])
    shares = peer.predict_proba(unit[1])
    ranked = vote(items, train, labels.target[train.rows])
    assert 0.2 < (shares.argmax(1) == labels.target[items.rows]).mean() < 0.9
    assert (ranked[:, 0] == shares.argmax(1)).mean() > 0.99
    voted = np.take_along_axis(shares, np.maximum(ranked, 0), 1)
    np.testing.assert_allclose(np.where(ranked >= 0, voted, 0), -np.sort(-shares, axis=1)[:, :5], atol=1e-3)
    assert ((ranked == -1) == (-np.sort(-shares, axis=1)[:, :5] == 0)).all()


def test_classes_without_a_vote_are_no_answer_and_small_data_do():
    train = FeatureSet(np.arange(3), np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float16))
    items = FeatureSet(np.arange(2), np.array([[2, 0], [0, 3]], dtype=np.float16))
    assert vote(items, train, np.array([40, 40, 7])).tolist() == [[40, 7], [7, 40]]
    many = FeatureSet(np.arange(60), np.repeat(np.eye(2, dtype=np.float16), 30, axis=0))
    assert vote(items, many, np.repeat([40, 7], 30)).tolist() == [[40, -1], [7, -1]]


def test_equal_sums_go_to_the_lower_class():
    train = FeatureSet(np.arange(2), np.eye(2, dtype=np.float16))
    assert vote(FeatureSet(np.arange(1), np.ones((1, 2))), train, np.array([9, 3])).tolist() == [[3, 9]]


def test_parts_change_no_answer(monkeypatch):
    features, labels = imagenet_like(n=300, spread=4.0)
    train, items = (of_split(features.pictures, labels, split) for split in ("train", "val"))
    whole = vote(items, train, labels.target[train.rows])
    monkeypatch.setattr("xclr.evaluation.suites.knn.BLOCK", 7)
    assert (vote(items, train, labels.target[train.rows]) == whole).all()


def test_the_suite_scores_val_by_the_neighbours_in_train():
    features, labels = imagenet_like()
    result = knn_suite(features, labels, CONFIG)
    assert [(each.suite, each.split, each.metric) for each in result.scores] == [
        ("knn", "val", metric) for metric in ("top1", "top5", "per_class")
    ]
    table = result.predictions.to_pandas()
    assert (labels.split[table.row_id] == "val").all()
    assert len(table) == result.scores[0].n == (labels.split == "val").sum()
    assert table.right.mean() == pytest.approx(result.scores[0].value)
    assert 0.8 < result.scores[0].value <= result.scores[1].value


def test_features_in_memory_are_left_as_they_are():
    features, labels = imagenet_like(n=100)
    vectors = features.pictures.vectors.astype(np.float32)
    pictures = FeatureSet(features.pictures.rows, vectors.copy())
    knn_suite(Features(pictures), labels, CONFIG)
    assert (pictures.vectors == vectors).all()


def test_data_without_labels_are_refused():
    features, labels = imagenet_like(n=100)
    none = replace(labels, targets=Ragged.single(np.full(100, -1)))
    with pytest.raises(DataError, match="no training picture has a label"):
        knn_suite(features, none, CONFIG)
    with pytest.raises(DataError, match="no picture of split 'val'"):
        knn_suite(features, replace(labels, split=np.full(100, "train")), CONFIG)
