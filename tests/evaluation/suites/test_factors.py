"""Suite `factors`: what features hold of each factor, and nothing that they do not."""

import numpy as np
import pytest

from tests.kit.scenes import made_captions
from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, load_labels
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.factors import drawn, factors_suite
from xclr.recipe import ProbeConfig
from xclr.recipe.scenes import FACTORS

CONFIG = SuiteConfig(suite="factors", bootstrap=100, seed=0, probe=ProbeConfig(solver="ridge", weight_decays=(1e-2,)))
TESTS, TRAINED = 200, 1200


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return load_labels(made_captions(tmp_path_factory.mktemp("scenes"), pictures=TRAINED, tests=TESTS).path)


def features_of(labels, *factors, wide=0.1):
    """One-hot factors side by side, with noise."""
    random = np.random.default_rng(0)
    parts = [np.eye(len(FACTORS[name]))[labels.factors[name]] for name in factors]
    vectors = np.concatenate([*parts, np.zeros((len(labels.split), 4))], 1)
    vectors += wide * random.normal(size=vectors.shape)
    return Features(FeatureSet(np.arange(len(vectors)), vectors.astype(np.float16)))


def scores_of(labels, *factors, **how):
    result = factors_suite(features_of(labels, *factors, **how), labels, CONFIG)
    return {each.split: each for each in result.scores}, result.predictions.to_pandas()


def test_what_features_hold_is_found_and_what_they_do_not_hold_is_chance(labels):
    scores, _ = scores_of(labels, "kind", "texture")
    for found in ("same", "random", "combinations", "texture"):
        assert scores[found].value > 0.99, found
    assert scores["colour"].value < 0.25 and scores["gap"].value == pytest.approx(0, abs=0.02)
    assert scores["place"].value == pytest.approx(0.1 + 0.8 / 10, abs=0.15)  # by the kind alone


def test_features_of_the_place_alone_have_the_gap(labels):
    """A probe that sees the place alone is right where places are usual: 0.8 of a kind that has it to itself."""
    scores, _ = scores_of(labels, "place")
    assert scores["same"].value > 0.55 and scores["random"].value < 0.2
    assert scores["gap"].value == pytest.approx(scores["same"].value - scores["random"].value)
    assert 0 < scores["gap"].ci95 < 0.2 and scores["gap"].ci_kind == "bootstrap" and scores["gap"].metric == "gap"


def test_scores_are_of_all_labels_and_of_few(labels):
    scores, table = scores_of(labels, "kind", wide=0.5)
    kinds = ["same", "random", "combinations"]
    expected = [f"{name}-{few}" for few in (120, 1000) for name in kinds] + [*kinds, "gap"]
    for factor in ("colour", "texture", "place"):
        expected += [f"{factor}-120", f"{factor}-1000", factor]
    assert list(scores) == expected
    assert scores["random-120"].value < scores["random-1000"].value <= scores["random"].value
    assert scores["random-120"].ci_kind == "t-draws" and scores["random"].ci_kind == "bootstrap"
    right = table.groupby("split").right.mean()
    assert scores["random"].value == pytest.approx(right["random"])
    assert scores["random-120"].value == pytest.approx(np.mean([right[f"random-120/{draw}"] for draw in range(3)]))
    assert {each.n for each in scores.values()} == {TESTS}


def test_draws_are_nested_balanced_and_of_the_size_asked_for(labels):
    train = FeatureSet(np.flatnonzero(labels.split == "train"), np.zeros((TRAINED, 1), np.float16))
    known = labels.factors["kind"]
    few, more, other = (drawn(train, known, n, 0, d).rows for n, d in ((120, 0), (1000, 0), (120, 1)))
    assert len(few) == 120 and len(more) == 1000 and set(few) < set(more) and set(few) != set(other)
    counts = np.bincount(known[few], minlength=12) / 120 - np.bincount(known[train.rows], minlength=12) / TRAINED
    assert np.abs(counts).max() < 0.02


def test_fewer_training_pictures_than_labels_leave_these_out(tmp_path):
    few = load_labels(made_captions(tmp_path, pictures=600, tests=20, held_out=()).path)
    scores, _ = scores_of(few, "kind")
    assert "random-120" in scores and "random-1000" not in scores and "combinations" not in scores


def test_other_pictures_are_refused(labels):
    from tests.kit.features import emoji_like

    features, others = emoji_like()
    with pytest.raises(DataError, match="no factor of these pictures is known"):
        factors_suite(features, others, CONFIG)
