import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from xclr import schema
from xclr.errors import DataError
from xclr.evaluation.score import (
    accuracy_score,
    bootstrap_half_width,
    bootstrap_interval,
    class_mean,
    distances,
    resample_counts,
    statistic_score,
    summarise,
    t_half_width,
)
from xclr.evaluation.stages import SuiteConfig

CONFIG = SuiteConfig(suite="linear", bootstrap=200, seed=0)


def row(seed, value, **changes):
    given = {
        "run": "r", "method": "xclr", "dataset": "emoji", "graph": "captions", "seed": seed, "checkpoint": f"c{seed}",
        "step": 1, "suite": "linear", "split": "vendor", "metric": "top1", "value": value, "n": 50, "ci95": 0.03,
        "ci_kind": "bootstrap",
    }  # fmt: skip
    return given | changes


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_bootstrap_width_is_the_normal_approximation_on_bernoulli_data(share):
    hits = (np.arange(1000) < share * 1000).astype(float)
    expected = 1.96 * math.sqrt(share * (1 - share) / 1000)
    assert bootstrap_half_width(hits, resamples=4000, seed=1) == pytest.approx(expected, rel=0.05)


def test_bootstrap_is_a_function_of_its_seed():
    values = np.random.default_rng(0).random(200)
    once, again, other = (bootstrap_half_width(values, resamples=300, seed=seed) for seed in (0, 0, 1))
    assert once == again
    assert once != other


def test_bootstrap_blocks_are_bounded_and_do_not_change_the_draws():
    blocks = list(resample_counts(300_000, 20, seed=0))
    assert max(each.size for each in blocks) <= 2**21
    assert sum(len(each) for each in blocks) == 20
    assert all((each.sum(1) == 300_000).all() for each in blocks)
    np.testing.assert_array_equal(blocks[0][:2], next(resample_counts(300_000, 2, seed=0)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_bootstrap_width_lies_within_the_range_of_the_values(values):
    width = bootstrap_half_width(np.array(values), resamples=100, seed=0)
    assert 0 <= width <= (max(values) - min(values)) / 2 + 1e-12


def test_bootstrap_needs_items():
    with pytest.raises(ValueError, match="items"):
        bootstrap_half_width(np.array([]), resamples=100, seed=0)


def test_class_mean_weighs_classes_equally():
    classes, right = np.array([7, 7, 7, 2, 2, 9]), np.array([1, 1, 0, 0, 1, 0])
    statistic = class_mean(classes, right)
    assert statistic(np.ones((1, 6)))[0] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    drawn = np.array([[1, 1, 1, 3, 0, 0]])  # class 9 was not drawn
    assert statistic(drawn)[0] == pytest.approx((2 / 3 + 0) / 2)


def test_score_of_many_items_and_of_one():
    many = accuracy_score(CONFIG, "vendor", np.arange(10), np.arange(10) // 2 * 2)
    assert (many.suite, many.split, many.metric, many.value, many.n) == ("linear", "vendor", "top1", 0.5, 10)
    assert many.ci_kind == "bootstrap"
    one = accuracy_score(CONFIG, "vendor", np.array([1]), np.array([1]))
    assert (one.value, one.ci95, one.ci_kind) == (1.0, None, "none")


def test_statistic_score_uses_the_interval_of_its_statistic():
    def statistic(counts):
        return counts[:, 0] / 5

    score = statistic_score(CONFIG, "vendor", "first", statistic, 5)
    assert score.value == pytest.approx(0.2)
    assert score.ci95 == bootstrap_interval(statistic, 5, resamples=200, seed=0)


def test_t_width_is_scipys():
    values = [0.31, 0.36, 0.335, 0.29]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert t_half_width(values) == pytest.approx((high - low) / 2)
    assert t_half_width([1.0, 2.0, 3.0]) == pytest.approx(4.302652729911275 / math.sqrt(3))


@pytest.mark.parametrize("values", [[], [0.1], [0.1, 0.2]])
def test_t_width_needs_three_seeds(values):
    with pytest.raises(ValueError, match="three"):
        t_half_width(values)


@pytest.mark.parametrize(
    ("values", "kind", "width"),
    [
        ([0.4], "bootstrap", 0.03),
        ([0.4, 0.5], "none", None),
        ([0.4, 0.5, 0.6], "t-seeds", t_half_width([0.4, 0.5, 0.6])),
    ],
)
def test_the_interval_depends_on_the_number_of_seeds(values, kind, width):
    (summary,) = summarise([row(seed, value) for seed, value in enumerate(values)])
    assert summary.mean == pytest.approx(np.mean(values))
    assert (summary.ci_kind, summary.ci95, summary.seeds, summary.n) == (kind, width, len(values), 50)


def test_summaries_keep_methods_graphs_splits_and_metrics_apart():
    rows = [row(0, 0.1), row(0, 0.2, graph="random_class"), row(0, 0.3, metric="top5"), row(0, 0.4, split="pictures")]
    assert [each.mean for each in summarise(rows)] == [0.1, 0.2, 0.3, 0.4]


def test_summarise_reads_a_table_and_counts_a_repeated_row_once():
    table = pa.Table.from_pylist([row(0, 0.1), row(1, 0.2), row(0, 0.1)], schema=schema.SCORES)
    (summary,) = summarise(table)
    assert (summary.seeds, summary.mean) == (2, pytest.approx(0.15))


def test_summarise_refuses_two_checkpoints_of_one_seed():
    with pytest.raises(DataError, match="two checkpoints of seed 0"):
        summarise([row(0, 0.1), row(0, 0.1, checkpoint="other")])


def test_distances_are_taken_seed_by_seed():
    values = {("xclr", "captions"): (0.30, 0.42, 0.51), ("clip", "pairs"): (0.20, 0.30, 0.40)}
    rows = [
        {"run": "r", "method": method, "dataset": "d", "graph": graph, "seed": seed, "checkpoint": f"{method}{seed}",
         "step": 1, "suite": "linear", "split": "pictures", "metric": "top1", "value": value, "n": 10, "ci95": 0.1,
         "ci_kind": "bootstrap"}
        for (method, graph), of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]  # fmt: skip
    (found,) = distances(pa.Table.from_pylist(rows, schema.SCORES), ("clip", "pairs"))
    assert (found.method, found.seeds, found.ci_kind) == ("xclr", 3, "t-seeds")
    assert found.mean == pytest.approx(0.11)
    assert found.ci95 == pytest.approx(t_half_width([0.10, 0.12, 0.11]))
    (one,) = distances(pa.Table.from_pylist([rows[0], rows[3]], schema.SCORES), ("clip", "pairs"))
    assert (one.mean, one.ci95, one.ci_kind) == (pytest.approx(0.10), None, "none")
