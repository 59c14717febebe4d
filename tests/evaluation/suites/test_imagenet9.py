import numpy as np
import pytest

from tests.kit.features import coordinate_head, votes
from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, Labels, Ragged
from xclr.evaluation.datasets.imagenet9 import VARIANTS
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.imagenet9 import gap, imagenet9_suite

CONFIG = SuiteConfig(suite="imagenet9", bootstrap=2000, seed=0)
MAPPING = np.array([0, 0, 1, -1, 2, 2])  # of six classes


def judged(splits, guesses, targets, mapping=MAPPING):
    vectors = votes([[guess] for guess in guesses], classes=6)
    features = Features(FeatureSet(np.arange(len(splits)), vectors), coordinate_head(6))
    return imagenet9_suite(
        features, Labels(np.array(splits), Ragged.single(np.array(targets)), mapping=mapping), CONFIG
    )


def test_the_group_of_the_most_likely_of_all_classes_counts_and_no_group_is_wrong():
    splits = ["mixed_same"] * 4 + ["mixed_rand"] * 4
    result = judged(splits, [1, 2, 3, 5, 0, 3, 3, 4], [0, 1, 1, 2, 1, 0, 2, 2])
    found = {(each.split, each.metric): each for each in result.scores}
    assert found["mixed_same", "top1"].value == 3 / 4
    assert found["mixed_rand", "top1"].value == 1 / 4
    assert found["gap", "gap"].value == 2 / 4
    assert {each.n for each in result.scores} == {4}
    assert result.predictions["prediction"].to_pylist() == [0, 1, -1, 2, 0, -1, -1, 2]
    assert result.predictions["right"].to_pylist() == [True, True, False, True, False, False, False, True]


def test_every_variant_has_one_score_in_the_published_order():
    splits = [name for name in sorted(VARIANTS) for _ in range(3)]
    result = judged(splits, [1] * 24, [0] * 24)
    assert [(each.split, each.metric) for each in result.scores] == [
        *((name, "top1") for name in VARIANTS), ("gap", "gap"),
    ]  # fmt: skip


def test_the_gaps_interval_is_that_of_two_independent_samples():
    rng = np.random.default_rng(0)
    same, random = rng.random(3000) < 0.7, rng.random(2000) < 0.5
    score = gap(CONFIG, same, random)
    assert score.value == pytest.approx(same.mean() - random.mean())
    deviation = np.sqrt(same.var() / len(same) + random.var() / len(random))
    assert score.ci95 == pytest.approx(1.96 * deviation, rel=0.08)
    assert (score.n, score.ci_kind) == (2000, "bootstrap")


def test_the_gap_of_the_same_foregrounds_is_resampled_by_foreground():
    """Names tell which belong together; without them, or for others, each variant is resampled on its own."""
    rng = np.random.default_rng(0)
    n = 400
    hard = rng.random(n) < 0.3  # wrong in both variants
    groups, order = rng.integers(3, size=n), rng.permutation(n)
    same = [f"mixed_same/val/{groups[i]:02d}_x/n{i}.JPEG" for i in range(n)]
    random = [f"mixed_rand/val/{groups[i]:02d}_x/n{i}_bg_n{i + 7}.JPEG" for i in order]
    right = {"mixed_same": ~hard, "mixed_rand": (~hard & (rng.random(n) < 0.9))[order]}
    guesses = np.where(
        np.concatenate(list(right.values())),
        [0, 2, 4] @ np.eye(3, dtype=int)[np.concatenate([groups, groups[order]])].T,
        3,
    )
    splits, targets = [each for each in right for _ in range(n)], np.concatenate([groups, groups[order]])

    def of(names, config):
        features = Features(FeatureSet(np.arange(2 * n), votes([[guess] for guess in guesses], 6)), coordinate_head(6))
        labels = Labels(np.array(splits), Ragged.single(targets), names=tuple(names), mapping=MAPPING)
        return imagenet9_suite(features, labels, config).scores[-1]

    together = of([*same, *random], CONFIG.model_copy(update={"paired": True}))
    apart = of([*same, *random], CONFIG)
    difference = right["mixed_same"].astype(float) - right["mixed_rand"][np.argsort(order)]
    assert together.ci95 == pytest.approx(1.96 * difference.std() / np.sqrt(n), rel=0.08)
    assert together.value == apart.value == pytest.approx(difference.mean())
    assert apart.ci95 > 1.5 * together.ci95
    for others in ([], [*same, *random[:-1], "mixed_rand/val/00_x/other.JPEG"]):
        assert of(others, CONFIG.model_copy(update={"paired": True})) == apart


def test_equal_answers_to_different_pictures_do_not_cancel():
    right = np.random.default_rng(0).random(500) < 0.5
    assert gap(CONFIG, right, right).ci95 > 0.04


def test_a_gap_of_single_pictures_has_no_interval():
    score = gap(CONFIG, np.array([True]), np.array([False]))
    assert (score.value, score.ci95, score.ci_kind) == (1.0, None, "none")


def test_missing_variants_and_other_mappings_are_refused():
    with pytest.raises(DataError, match="no pictures of mixed_same or of mixed_rand"):
        judged(["mixed_same"] * 2, [0, 1], [0, 0])
    with pytest.raises(DataError, match="the mapping has classes 0 to 2"):
        judged(["mixed_same", "mixed_rand"], [5, 1], [0, 0], mapping=MAPPING[:3])
