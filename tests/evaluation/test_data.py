"""What suites read: features as they were written, labels of captions and of benchmarks, ragged lists."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.features import emoji_like, write_captions, write_features
from xclr import schema
from xclr.errors import DataError
from xclr.evaluation import FeatureSet, Labels, Ragged, load_features, load_labels
from xclr.evaluation.data import Answers, predictions
from xclr.evaluation.datasets import Benchmark, write


def test_features_come_back_as_they_were_written_and_stay_on_disk(tmp_path):
    features, _ = emoji_like()
    loaded = load_features(write_features(tmp_path, features.pictures).path)
    np.testing.assert_array_equal(loaded.rows, features.pictures.rows)
    np.testing.assert_array_equal(loaded.vectors, features.pictures.vectors)
    assert isinstance(loaded.vectors, np.memmap) and loaded.vectors.dtype == np.float16


@pytest.mark.parametrize(
    ("rows", "vectors", "message"),
    [
        ([0, 1, 2], np.zeros((2, 4)), "one vector a row"),
        ([1, 0], np.zeros((2, 4)), "sorted by row"),
        ([0, 1], np.full((2, 4), np.inf), "not finite"),
    ],
)
def test_damaged_features_are_refused(tmp_path, rows, vectors, message):
    made = write_features(tmp_path, FeatureSet(np.array(rows), np.asarray(vectors, dtype=np.float32)))
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
    loaded = load_labels(write_captions(tmp_path, Labels(labels.split, Ragged.single(target)), annotated=False).path)
    np.testing.assert_array_equal(loaded.target, target)
    assert loaded.tags == () and len(loaded.group) == 0


def test_a_benchmark_s_labels_come_back_with_every_class_that_counts(tmp_path):
    items = {
        "row_id": [0, 1, 2], "name": ["a", "b", "c"], "split": ["train", "val", "val"],
        "targets": [[1], [], [0, 1]], "attribute": [None, 2, None],
    }  # fmt: skip
    made = Benchmark(pa.table(items, schema=schema.ITEMS), (("crane bird", "n02012849"), ("disc", None)), (0, -1))
    write(made, tmp_path, {})
    labels = load_labels(tmp_path)
    assert labels.targets.lengths.tolist() == [1, 0, 2] and labels.target.tolist() == [1, -1, 0]
    assert labels.attribute.tolist() == [-1, 2, -1] and labels.mapping.tolist() == [0, -1]
    assert labels.classes == ("crane bird", "disc") and labels.synsets == ("n02012849", None)
    assert labels.names == ("a", "b", "c")


LISTS = st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=8)


@given(LISTS, st.data())
def test_ragged_lists_say_what_lists_of_lists_say(lists, data):
    ragged = Ragged.of(lists)
    guesses = np.array(data.draw(st.lists(st.integers(-1, 6), min_size=len(lists), max_size=len(lists))))
    rows = np.array(data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=6)), dtype=np.int64)
    assert ragged.contains(guesses).tolist() == [guess in each for guess, each in zip(guesses, lists, strict=True)]
    assert ragged.first.tolist() == [each[0] if each else -1 for each in lists]
    assert ragged.take(rows).arrow().to_pylist() == [lists[row] for row in rows]


def test_stored_answers_say_whether_they_are_right():
    table = predictions([Answers("val", np.array([3, 5]), Ragged.of([[1, 2], []]), np.array([2, 2]))])
    assert table.to_pylist() == [
        {"row_id": 3, "split": "val", "target": [1, 2], "prediction": 2, "right": True},
        {"row_id": 5, "split": "val", "target": [], "prediction": 2, "right": False},
    ]
