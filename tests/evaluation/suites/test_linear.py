from dataclasses import replace

import numpy as np
import pytest

from tests.kit.features import emoji_like
from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, Ragged, of_split
from xclr.evaluation.heads import load_head, save_head
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.linear import accuracies, best_of, fit_head, linear_suite, listed_accuracies
from xclr.recipe import ProbeConfig

CONFIG = SuiteConfig(suite="linear", bootstrap=100, seed=0)


def values(result):
    return {(each.split, each.metric): each.value for each in result.scores}


def relabelled(labels, target, **changes):
    return replace(labels, targets=Ragged.single(target), **changes)


def bits(head, folder):
    """A head as it is stored, learning rate and weight decay included."""
    save_head(head, folder / "head.pt")
    assert load_head(folder / "head.pt").weight_decay == head.weight_decay
    return (folder / "head.pt").read_bytes()


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
    assert table.columns.tolist() == ["row_id", "split", "target", "prediction", "right"]
    for split, part in table.groupby("split"):
        assert (labels.split[part.row_id] == split).all()
        assert (labels.target[part.row_id] == part.prediction).tolist() == part.right.tolist()
        assert part.right.mean() == pytest.approx(values(result)[split, "top1"])


def test_known_answers():
    ranked = np.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [2, 1, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]])
    scores = accuracies(CONFIG, "vendor", np.array([1, 5, 1, 1]), ranked)
    found = {each.metric: each.value for each in scores}
    assert found == {"top1": 1 / 4, "top5": 3 / 4, "per_class": pytest.approx((1 / 3 + 0) / 2)}


def test_any_of_several_targets_counts():
    ranked = np.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [2, 1, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]])
    targets = Ragged.of([[7, 1], [6, 5], [], [1]])
    scores = listed_accuracies(CONFIG, "vendor", targets, np.array([0, 0, 0, 8]), ranked)
    found = {each.metric: each.value for each in scores}
    assert found == {"top1": 1 / 4, "top5": 2 / 4, "per_class": pytest.approx((1 / 3 + 0) / 2)}


def test_a_class_without_training_pictures_counts_as_wrong():
    features, labels = emoji_like()
    target = np.where((labels.split == "vendor") & (labels.target == 0), 99, labels.target)
    before, after = (linear_suite(features, each, CONFIG) for each in (labels, relabelled(labels, target)))
    vendor = labels.split == "vendor"
    lost = vendor & (labels.target == 0)
    table = before.predictions.to_pandas()
    right_before = table[(table.split == "vendor") & table.right].row_id
    expected = (~lost[right_before]).sum() / vendor.sum()
    assert values(after)["vendor", "top1"] == pytest.approx(expected)
    assert next(each.n for each in after.scores if each.split == "vendor") == vendor.sum()


@pytest.mark.parametrize("solver", ["sgd", "lbfgs", "ridge"])
@pytest.mark.slow
def test_held_out_features_and_labels_change_no_bit_of_the_head(tmp_path, solver):
    """Neither the chosen setting nor the head sees anything but split "train"."""
    features, labels = emoji_like()
    config = CONFIG.model_copy(update={"probe": ProbeConfig(solver=solver, epochs=3)})
    rng = np.random.default_rng(1)
    other = labels.split[features.pictures.rows] != "train"
    turned = relabelled(
        labels, np.where(labels.split == "train", labels.target, rng.integers(9, size=len(labels.split)))
    )
    found = []
    for fill, known in ((None, labels), (-7.0, labels), (np.nan, turned), (np.inf, turned)):
        vectors = features.pictures.vectors.copy()
        if fill is not None:
            vectors[other] = fill
        pictures = FeatureSet(features.pictures.rows, vectors)
        found.append(bits(fit_head(of_split(pictures, known, "train", known.target), known.target, config), tmp_path))
    assert len(set(found)) == 1


def test_held_out_data_change_no_answer_elsewhere():
    features, labels = emoji_like()
    rows, vectors = features.pictures.rows, features.pictures.vectors
    vendor = labels.split[rows] == "vendor"
    changed = Features(FeatureSet(rows, np.where(vendor[:, None], 50 * vectors, vectors)))
    target = np.where(labels.split == "vendor", (labels.target + 1) % 4, labels.target)
    before = linear_suite(features, labels, CONFIG).predictions.to_pandas()
    after = linear_suite(changed, relabelled(labels, target), CONFIG).predictions.to_pandas()
    kept = before.split != "vendor"
    assert before[kept].astype(str).equals(after[kept].astype(str))
    assert not before[~kept].astype(str).equals(after[~kept].astype(str))


def test_the_recipe_says_how_the_head_is_fitted():
    features, labels = emoji_like()
    train = of_split(features.pictures, labels, "train")
    for solver, rate in (("sgd", 0.02), ("lbfgs", 0.0), ("ridge", 0.0)):
        probe = ProbeConfig(solver=solver, learning_rates=(0.02,), weight_decays=(3e-3,), epochs=1)
        head = fit_head(train, labels.target, CONFIG.model_copy(update={"probe": probe}))
        assert (head.learning_rate, head.weight_decay) == (pytest.approx(rate), pytest.approx(3e-3))


def test_only_splits_that_exist_and_items_with_a_label_are_scored():
    features, labels = emoji_like()
    target = labels.target.copy()
    target[np.flatnonzero(labels.split == "pictures")[:5]] = -1
    split = np.where(labels.split == "vendor", "unused", labels.split)
    scores = linear_suite(features, relabelled(labels, target, split=split), CONFIG).scores
    assert {each.split for each in scores} == {"pictures", "concepts"}
    assert scores[0].n == (labels.split == "pictures").sum() - 5


def test_data_without_labels_are_refused():
    features, labels = emoji_like()
    with pytest.raises(DataError, match="no training picture"):
        linear_suite(features, relabelled(labels, np.full_like(labels.target, -1)), CONFIG)


def test_ranks_are_of_at_most_so_many_classes():
    features, labels = emoji_like()
    head = fit_head(of_split(features.pictures, labels, "train"), labels.target, CONFIG)
    assert best_of(head, features.pictures).shape == (len(features.pictures.rows), 4)
    assert best_of(head, features.pictures, k=2).shape == (len(features.pictures.rows), 2)
