import numpy as np
import pytest

from tests.evaluation.artifacts import emoji_like
from xclr.errors import DataError
from xclr.evaluation import FeatureSet, Labels, linear_suite
from xclr.evaluation.linear import accuracies
from xclr.stages import SuiteConfig

CONFIG = SuiteConfig(suite="linear", bootstrap=100, seed=0)


def values(result):
    return {(each.split, each.metric): each.value for each in result.scores}


def relabel(labels, **changes):
    return Labels(**(vars(labels) | changes))


def test_separable_classes_are_found_in_every_held_out_split():
    features, labels = emoji_like()
    result = linear_suite(features, labels, CONFIG)
    assert [(each.split, each.metric) for each in result.scores] == [
        (split, metric) for split in ("pictures", "concepts", "vendor") for metric in ("top1", "top5", "per_class")
    ]
    assert all(each.suite == "linear" and each.ci_kind == "bootstrap" for each in result.scores)
    assert min(value for (_, metric), value in values(result).items() if metric != "top5") > 0.9
    assert values(result)["vendor", "top5"] == 1.0  # of four classes


def test_predictions_are_the_items_behind_the_scores():
    features, labels = emoji_like()
    result = linear_suite(features, labels, CONFIG)
    table = result.predictions.to_pandas()
    assert table.columns.tolist() == ["row_id", "split", "target", "prediction"]
    for split, part in table.groupby("split"):
        assert (labels.split[part.row_id] == split).all()
        assert (part.target == part.prediction).mean() == pytest.approx(values(result)[split, "top1"])


def test_known_answers():
    ranked = np.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [2, 1, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]])
    scores = accuracies(CONFIG, "vendor", np.array([1, 5, 1, 1]), ranked)
    found = {each.metric: each.value for each in scores}
    assert found == {"top1": 1 / 4, "top5": 3 / 4, "per_class": pytest.approx((1 / 3 + 0) / 2)}


def test_a_class_without_training_pictures_counts_as_wrong():
    features, labels = emoji_like()
    target = np.where((labels.split == "vendor") & (labels.target == 0), 99, labels.target)
    before, after = (linear_suite(features, each, CONFIG) for each in (labels, relabel(labels, target=target)))
    vendor = labels.split == "vendor"
    lost = vendor & (labels.target == 0)
    table = before.predictions.to_pandas()
    right_before = table[(table.split == "vendor") & (table.target == table.prediction)].row_id
    expected = (~lost[right_before]).sum() / vendor.sum()
    assert values(after)["vendor", "top1"] == pytest.approx(expected)
    assert next(each.n for each in after.scores if each.split == "vendor") == vendor.sum()


def test_held_out_data_change_no_head():
    features, labels = emoji_like()
    plain = features["plain"]
    vendor = labels.split[plain.rows] == "vendor"
    vectors = np.where(vendor[:, None], 50 * plain.vectors, plain.vectors)
    target = np.where(labels.split == "vendor", (labels.target + 1) % 4, labels.target)
    changed = {"plain": FeatureSet(plain.rows, vectors)}
    before = linear_suite(features, labels, CONFIG).predictions.to_pandas()
    after = linear_suite(changed, relabel(labels, target=target), CONFIG).predictions.to_pandas()
    kept = before.split != "vendor"
    assert before[kept].equals(after[kept])


def test_only_splits_that_exist_and_items_with_a_label_are_scored():
    features, labels = emoji_like()
    target = labels.target.copy()
    target[np.flatnonzero(labels.split == "pictures")[:5]] = -1
    split = np.where(labels.split == "vendor", "unused", labels.split)
    scores = linear_suite(features, relabel(labels, target=target, split=split), CONFIG).scores
    assert {each.split for each in scores} == {"pictures", "concepts"}
    assert scores[0].n == (labels.split == "pictures").sum() - 5


def test_data_without_labels_or_plain_features_are_refused():
    features, labels = emoji_like()
    with pytest.raises(DataError, match="no training picture"):
        linear_suite(features, relabel(labels, target=np.full_like(labels.target, -1)), CONFIG)
    with pytest.raises(DataError, match="plain"):
        linear_suite({}, labels, CONFIG)
