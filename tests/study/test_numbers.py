"""The statistics of studies: against scipy where it has them, and by their own promises where it has not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr, ttest_1samp

from xclr.study.numbers import (
    Components,
    Interval,
    components,
    equivalence,
    holm,
    over_both,
    over_both_of,
    over_seeds,
    rank_correlation,
    seeds_needed,
)

SEEDS, PICTURES = 10, 200


def drawn(rng, mean=0.0, seeds=0.02, pictures=0.3, both=0.4, size=(SEEDS, PICTURES)):
    """Values [S, n] of a model with effects of seeds, of pictures and of both, as standard deviations."""
    noise = rng.normal(0, both, size)
    return mean + rng.normal(0, seeds, (size[0], 1)) + rng.normal(0, pictures, (1, size[1])) + noise


def test_intervals_over_both_hold_the_truth_as_often_as_they_say():
    """Of 300 data sets whose seeds and pictures are drawn anew; over seeds alone they would hold it half as often."""
    rng = np.random.default_rng(0)
    found = [over_both(drawn(rng), resamples=400, seed=each) for each in range(300)]
    held = np.mean([each.low <= 0 <= each.high for each in found])
    assert 0.93 <= held <= 1
    alone = [over_seeds(drawn(rng).mean(1)) for _ in range(300)]
    assert np.mean([each.low <= 0 <= each.high for each in alone]) < 0.75
    assert np.mean([each.p < 0.05 for each in found]) == pytest.approx(1 - held, abs=0.01)


def test_tables_that_share_their_draws_have_the_intervals_that_each_has_alone():
    rng = np.random.default_rng(8)
    tables = [drawn(rng, mean=0.1), drawn(rng) * 2]
    shared = over_both_of(tables, resamples=300, seed=5)
    assert shared == [over_both(each, resamples=300, seed=5) for each in tables]


def test_the_error_is_that_of_the_components():
    rng = np.random.default_rng(1)
    found = [over_both(drawn(rng, mean=0.1), resamples=400, seed=0).error for _ in range(100)]
    truth = np.sqrt(0.02**2 / SEEDS + 0.3**2 / PICTURES + 0.4**2 / (SEEDS * PICTURES))
    assert np.mean(found) == pytest.approx(truth, rel=0.12)


def test_over_seeds_it_is_students_test():
    values = np.random.default_rng(2).normal(0.3, 1, 7)
    found, expected = over_seeds(values), ttest_1samp(values, 0)
    low, high = expected.confidence_interval(0.95)
    assert found[2:] == pytest.approx((low, high, expected.pvalue))


def test_without_spread_a_mean_is_certain_and_one_seed_has_no_interval():
    assert over_both(np.zeros((3, 4)), resamples=100, seed=0) == Interval(0, 0, 0, 0, 1)
    assert over_seeds(np.ones(3)) == Interval(1, 0, 1, 1, 0)
    with pytest.raises(ValueError, match="1 seeds and 4 pictures"):
        over_both(np.zeros((1, 4)), resamples=100, seed=0)


def test_components_are_those_of_the_model():
    rng = np.random.default_rng(3)
    found = np.mean([components(drawn(rng, seeds=0.1)) for _ in range(200)], axis=0)
    assert found == pytest.approx((0.1**2, 0.3**2, 0.4**2), rel=0.1)
    assert components(np.zeros((3, 4))) == (0, 0, 0)


@pytest.mark.parametrize("difference", [0.06, 0.09])
def test_so_many_seeds_see_the_difference_four_times_in_five(difference):
    parts = Components(0.1**2, 0.2**2, 0.4**2)
    seeds = seeds_needed(parts, 400, difference, 0.05)
    rng = np.random.default_rng(4)
    means = np.array([drawn(rng, difference, 0.1, 0.2, 0.4, (seeds, 400)).mean() for _ in range(1500)])
    error = np.sqrt(parts.seeds / seeds + parts.pictures / 400 + parts.both / (seeds * 400))
    assert np.mean(np.abs(means) / error > norm.ppf(0.975)) == pytest.approx(0.8, abs=0.05)


def test_where_the_pictures_leave_too_much_to_chance_no_seeds_suffice():
    parts = Components(0.01, 0.25, 0.0)
    assert seeds_needed(parts, 1000, 0.01, 0.05) is None
    assert seeds_needed(parts, 100_000, 0.01, 0.05) > seeds_needed(parts, 100_000, 0.03, 0.05) >= 2


def test_equivalence_is_two_one_sided_tests():
    """Of values that lie closely about a mean, by scipy."""
    values = np.random.default_rng(5).normal(0.004, 0.01, 12)
    below = ttest_1samp(values, -0.015, alternative="greater").pvalue
    above = ttest_1samp(values, 0.015, alternative="less").pvalue
    assert equivalence(over_seeds(values), 0.015, 12) == pytest.approx(max(below, above))
    assert equivalence(over_seeds(values + 0.02), 0.015, 12) > 0.5
    assert equivalence(Interval(0.01, 0, 0.01, 0.01, 0), 0.015, 3) == 0
    assert equivalence(Interval(0.02, 0, 0.02, 0.02, 0), 0.015, 3) == 1


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([0.02]) == [0.02]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_corrected_p_are_between_themselves_and_bonferronis_and_in_their_order(ps):
    found = holm(ps)
    assert all(p <= each <= min(1, len(ps) * p) + 1e-12 for p, each in zip(ps, found, strict=True))
    assert [found[place] for place in np.argsort(ps, kind="stable")] == sorted(found)


def test_rank_correlation_is_spearmans():
    a = np.random.default_rng(6).integers(0, 20, 500)  # with ties
    b = a + np.random.default_rng(7).normal(0, 10, 500)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
