import numpy as np
import pytest

from tests.evaluation.artifacts import emoji_like, write_captions, write_features
from xclr.errors import DataError
from xclr.evaluation import FeatureSet, Labels, load_features, load_labels


def test_features_come_back_as_they_were_written(tmp_path):
    features, _ = emoji_like()
    loaded = load_features(write_features(tmp_path, features).path)
    assert loaded.keys() == features.keys()
    for name, each in loaded.items():
        np.testing.assert_array_equal(each.rows, features[name].rows)
        np.testing.assert_allclose(each.vectors, features[name].vectors, rtol=1e-3, atol=1e-3)
        assert each.vectors.dtype == np.float32


@pytest.mark.parametrize(
    ("rows", "vectors", "message"),
    [
        ([0, 1, 2], np.zeros((2, 4)), "one vector a row"),
        ([1, 0], np.zeros((2, 4)), "sorted by row"),
        ([0, 1], np.full((2, 4), np.inf), "not finite"),
    ],
)
def test_damaged_features_are_refused(tmp_path, rows, vectors, message):
    made = write_features(tmp_path, {"plain": FeatureSet(np.array(rows), np.asarray(vectors, dtype=np.float32))})
    with pytest.raises(DataError, match=message):
        load_features(made.path)


def test_annotations_give_targets_groups_and_tags(tmp_path):
    _, labels = emoji_like(n=50)
    loaded = load_labels(write_captions(tmp_path, labels, annotated=True).path)
    for name in ("split", "target", "group"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(labels, name))
    assert loaded.tags == labels.tags


def test_without_annotations_the_target_is_the_label(tmp_path):
    _, labels = emoji_like(n=50)
    target = np.where(np.arange(50) % 3 == 0, -1, labels.target)
    given = Labels(labels.split, target, labels.group, labels.tags)
    loaded = load_labels(write_captions(tmp_path, given, annotated=False).path)
    np.testing.assert_array_equal(loaded.target, target)
    assert (loaded.group == -1).all()
    assert set(loaded.tags) == {()}
