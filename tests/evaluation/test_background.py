import numpy as np
import pytest

from tests.evaluation.artifacts import emoji_like
from xclr.errors import DataError
from xclr.evaluation import FeatureSet, background_suite
from xclr.evaluation.score import bootstrap_half_width
from xclr.stages import SuiteConfig

CONFIG = SuiteConfig(suite="background", bootstrap=200, seed=0)


def run(features, labels):
    return {each.split: each for each in background_suite(features, labels, CONFIG).scores}


def test_a_head_that_reads_the_background_has_a_gap():
    found = run(*emoji_like())
    assert found["mixed_same"].value > 0.95
    assert found["gap"].value == pytest.approx(found["mixed_same"].value - found["mixed_rand"].value)
    assert found["gap"].value > 0.3
    assert {name: each.metric for name, each in found.items()} == {
        "mixed_same": "top1", "mixed_rand": "top1", "gap": "gap",
    }  # fmt: skip


def test_equal_renderings_have_no_gap_and_no_interval_around_it():
    features, labels = emoji_like()
    found = run(features | {"mixed_rand": features["mixed_same"]}, labels)
    assert (found["gap"].value, found["gap"].ci95) == (0.0, 0.0)
    assert found["mixed_same"].n == found["gap"].n == (labels.split == "pictures").sum()


def test_the_gaps_interval_is_paired():
    features, labels = emoji_like()
    table = background_suite(features, labels, CONFIG).predictions.to_pandas()
    right = (table.target == table.prediction).to_numpy(dtype=float)
    same, random = (right[table.split == name] for name in ("mixed_same", "mixed_rand"))
    expected = bootstrap_half_width(same - random, resamples=200, seed=0)
    assert run(features, labels)["gap"].ci95 == pytest.approx(expected)


def test_wrong_renderings_are_refused():
    features, labels = emoji_like()
    same = features["mixed_same"]
    fewer = FeatureSet(same.rows[1:], same.vectors[1:])
    with pytest.raises(DataError, match="different rows"):
        background_suite(features | {"mixed_rand": fewer}, labels, CONFIG)
    with pytest.raises(DataError, match="'trained'"):
        background_suite({"plain": features["plain"]}, labels, CONFIG)


def test_no_held_out_pictures_no_scores():
    features, labels = emoji_like()
    none = FeatureSet(np.array([], dtype=np.int64), np.zeros((0, 6), dtype=np.float32))
    result = background_suite(features | {"mixed_same": none, "mixed_rand": none}, labels, CONFIG)
    assert (result.scores, result.predictions.num_rows) == ([], 0)
