from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.features import imagenet_like
from xclr.errors import DataError
from xclr.evaluation.data import Ragged, of_split
from xclr.evaluation.score import t_half_width
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.few_shot import PERCENTS, few_shot_suite, one_rate, shares
from xclr.evaluation.suites.linear import best_of, fit_head
from xclr.recipe import ProbeConfig

CONFIG = SuiteConfig(suite="few-shot", bootstrap=100, seed=0, probe=ProbeConfig(solver="lbfgs", weight_decays=(1e-2,)))
NAMES = [f"{percent}-percent" for percent in (1, 2, 5, 10, 25, 100)]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=300), st.integers(0, 9), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_sets_are_nested_hold_every_class_and_as_much_of_each_as_they_say(classes, seed, number):
    classes = np.array(classes)
    place = shares(classes, seed, number)
    assert (place == shares(classes, seed, number)).all()
    before = np.zeros(len(classes), dtype=bool)
    for percent in PERCENTS:
        chosen = place < percent / 100
        assert (chosen | ~before).all()
        for each in np.unique(classes):
            assert chosen[classes == each].sum() == -(-percent * (classes == each).sum() // 100)
        before = chosen
    assert before.all()


def test_draws_differ_and_so_do_seeds():
    classes = np.repeat(np.arange(3), 50)
    drawn = [shares(classes, seed, number) < 0.1 for seed, number in ((0, 0), (0, 1), (0, 2), (1, 0))]
    assert len({each.tobytes() for each in drawn}) == 4


def test_every_picture_of_a_class_is_drawn_about_equally_often():
    classes = np.zeros(20, dtype=np.int64)
    counts = sum((shares(classes, seed, 0) < 0.25).astype(int) for seed in range(400))
    assert counts.sum() == 400 * 5
    assert 60 < counts.min() < counts.max() < 140


def test_scores_are_the_means_of_three_draws_with_an_interval_over_them():
    features, labels = imagenet_like(n=1500, classes=12, spread=4.0)
    result = few_shot_suite(features, labels, CONFIG)
    assert [(each.split, each.metric) for each in result.scores] == [(name, "top1") for name in NAMES]
    table = result.predictions.to_pandas()
    right = table.groupby("split").right.mean()
    for score in result.scores:
        assert score.n == (labels.split == "val").sum()
        draws = [right[name] for name in right.index if name.startswith(score.split)]
        assert score.value == pytest.approx(np.mean(draws))
        if score.split == "100-percent":
            assert (len(draws), score.ci_kind) == (1, "bootstrap")
        else:
            assert (len(draws), score.ci_kind) == (3, "t-draws")
            assert score.ci95 == pytest.approx(t_half_width(draws))
    assert set(right.index) == {f"{name}/{number}" for name in NAMES[:-1] for number in range(3)} | {"100-percent/0"}
    assert result.scores[0].value < result.scores[3].value < result.scores[-1].value


def test_all_of_the_labels_is_the_plain_probe():
    features, labels = imagenet_like(n=400, spread=3.0)
    last = few_shot_suite(features, labels, CONFIG).predictions.to_pandas().query("split == '100-percent/0'")
    train, val = (of_split(features.pictures, labels, split) for split in ("train", "val"))
    assert (best_of(fit_head(train, labels.target, CONFIG), val)[:, 0] == last.prediction).all()


@pytest.mark.slow
def test_what_was_not_drawn_and_what_is_tested_change_no_head():
    """With other labels outside the smallest set of the first draw, its answers stay as they are."""
    features, labels = imagenet_like(n=600, spread=3.0)
    train = np.flatnonzero(labels.split == "train")
    drawn = train[shares(labels.target[train], 0, 0) < 0.01]
    target = labels.target.copy()
    rest = np.setdiff1d(np.arange(600), train)
    target[rest] = (target[rest] + 1) % 8
    before, after = (
        few_shot_suite(features, each, CONFIG).predictions.to_pandas()
        for each in (labels, replace(labels, targets=Ragged.single(target)))
    )
    assert (before.prediction == after.prediction).all()
    assert before.right.mean() != after.right.mean()
    assert sorted(labels.target[drawn]) == list(range(8))


def test_one_learning_rate_and_all_weight_decays_compete():
    probe = ProbeConfig(learning_rates=(0.1, 0.01, 0.03), weight_decays=(1e-4, 1e-2))
    assert one_rate(probe).learning_rates == (0.03,)
    assert one_rate(probe).weight_decays == (1e-4, 1e-2)


def test_data_without_labels_are_refused():
    features, labels = imagenet_like(n=100)
    with pytest.raises(DataError, match="no training picture"):
        few_shot_suite(features, replace(labels, split=np.full(100, "val")), CONFIG)
    with pytest.raises(DataError, match="no picture of split 'val'"):
        few_shot_suite(features, replace(labels, split=np.full(100, "train")), CONFIG)
