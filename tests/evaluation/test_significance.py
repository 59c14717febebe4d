"""Pairs of answers: the join, McNemar's exact test, the paired bootstrap, and the distances made of them."""

import math
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.kit.features import ABOUT
from xclr import schema
from xclr.evaluation.score import bootstrap_half_width
from xclr.evaluation.significance import Distance, JudgedItems, distances_of, mcnemar, paired, paired_bootstrap

ANSWERS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def table_of(both, a_alone, b_alone, neither):
    """Answers of two sides with these counts."""
    right_a = np.repeat([True, True, False, False], [both, a_alone, b_alone, neither])
    right_b = np.repeat([True, False, True, False], [both, a_alone, b_alone, neither])
    return right_a, right_b


def by_hand(a_alone, b_alone):
    """2 sum_{k <= min} C(n, k) / 2^n, at most 1."""
    n = a_alone + b_alone
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(min(a_alone, b_alone) + 1)) / 2**n)


@pytest.mark.parametrize(
    ("counts", "p"),
    [
        ((59, 6, 16, 80), 0.0525),  # a textbook's table: chi2 = 4.55 (p 0.033), exact p 0.053
        ((10, 1, 9, 5), 22 / 1024),  # 2 (C(10, 0) + C(10, 1)) / 2^10
        ((0, 0, 5, 0), 2 / 32),
        ((3, 4, 4, 3), 1.0),
        ((7, 0, 0, 2), 1.0),
    ],
)
def test_p_of_known_tables(counts, p):
    assert mcnemar(*table_of(*counts)) == pytest.approx(p, rel=1e-3)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_p_is_the_binomial_tail_and_knows_no_sides(both, a_alone, b_alone, neither):
    a, b = table_of(both, a_alone, b_alone, neither)
    assert mcnemar(a, b) == pytest.approx(by_hand(a_alone, b_alone), rel=1e-9)
    assert mcnemar(a, b) == mcnemar(b, a)
    assert mcnemar(~a, ~b) == pytest.approx(mcnemar(a, b))


def test_p_is_near_the_chi_square_of_many_pairs():
    a, b = table_of(0, 540, 460, 0)
    corrected = stats.chi2.sf((abs(540 - 460) - 1) ** 2 / 1000, df=1)
    assert mcnemar(a, b) == pytest.approx(corrected, rel=0.01)


def test_equal_methods_are_told_apart_no_more_often_than_promised():
    rng = np.random.default_rng(0)
    found = [mcnemar(*(rng.random((2, 80)) < 0.6)) < 0.05 for _ in range(400)]
    assert np.mean(found) < 0.06


@given(ANSWERS)
@settings(deadline=None)
def test_the_difference_and_its_width_change_sides_together(answers):
    a, b = np.array(answers).T
    difference, half = paired_bootstrap(a, b, resamples=500, seed=3)
    back, other_half = paired_bootstrap(b, a, resamples=500, seed=3)
    assert difference == pytest.approx(a.mean() - b.mean())
    assert back == -difference
    assert 0 <= half <= 1
    assert other_half == pytest.approx(half, abs=0.1)  # other draws
    assert paired_bootstrap(a, a, resamples=100, seed=0) == (0.0, 0.0)


@pytest.mark.parametrize("kind", ["answers", "numbers"])
def test_the_width_is_that_of_scipy_and_of_plain_resampling(kind):
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 300)) if kind == "numbers" else rng.random((2, 300)) < [[0.7], [0.5]]
    _, half = paired_bootstrap(a, b, resamples=8000, seed=0)
    differences = a.astype(float) - b.astype(float)
    assert half == pytest.approx(bootstrap_half_width(differences, resamples=8000, seed=0), rel=0.04)
    peer = stats.bootstrap((differences,), np.mean, method="percentile", n_resamples=8000, rng=np.random.default_rng(2))
    assert half == pytest.approx((peer.confidence_interval.high - peer.confidence_interval.low) / 2, rel=0.04)


def test_the_interval_covers_the_true_difference_as_often_as_promised():
    rng, inside = np.random.default_rng(0), []
    for trial in range(500):
        a, b = correlated(rng, 200)
        difference, half = paired_bootstrap(a, b, resamples=400, seed=trial)
        inside.append(abs(difference - 0.05) <= half)
    assert 0.92 < np.mean(inside) < 0.975  # 0.95 with a standard error of 0.01


def correlated(rng, n):
    """Answers that mostly agree: right with 0.7 and 0.65."""
    ease = rng.random(n)
    return ease < 0.7, (ease + rng.normal(scale=0.02, size=n)) % 1 < 0.65


def test_correlated_answers_have_a_narrower_interval_than_unpaired_ones():
    a, b = correlated(np.random.default_rng(0), 1000)
    _, half = paired_bootstrap(a, b, resamples=2000, seed=0)
    unpaired = math.hypot(*(bootstrap_half_width(each, resamples=2000, seed=0) for each in (a, b)))
    assert half < unpaired / 2
    _, shuffled = paired_bootstrap(a, np.random.default_rng(1).permutation(b), resamples=2000, seed=0)
    assert shuffled == pytest.approx(unpaired, rel=0.1)


def test_many_distinct_values_are_drawn_in_blocks_of_bounded_memory():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 30_000))  # 70 resamples a block
    _, half = paired_bootstrap(a, b, resamples=150, seed=0)
    assert half == pytest.approx(1.96 * np.std(a - b) / math.sqrt(30_000), rel=0.2)


def test_more_items_give_a_narrower_interval():
    rng = np.random.default_rng(0)
    halves = [paired_bootstrap(*(rng.random((2, n)) < 0.5), resamples=2000, seed=0)[1] for n in (100, 1000, 10_000)]
    assert all(narrow < wide for wide, narrow in pairwise(halves))


def test_unequal_lengths_and_nothing_at_all_are_refused():
    one, two = np.ones(1, dtype=bool), np.ones(2, dtype=bool)
    with pytest.raises(ValueError, match="as many items on both sides, not 1 and 2"):
        mcnemar(one, two)
    with pytest.raises(ValueError, match="as many items"):
        paired_bootstrap(one, two, resamples=10, seed=0)
    with pytest.raises(ValueError, match="not 0 and 10"):
        paired_bootstrap(one[:0], one[:0], resamples=10, seed=0)
    with pytest.raises(ValueError, match="not 1 and 0"):
        paired_bootstrap(one, one, resamples=0, seed=0)


def judged(rows, right, targets):
    return JudgedItems(
        np.array(rows, dtype=np.int64), pa.array(targets, pa.list_(pa.int64())), np.array(right, dtype=bool)
    )


def test_the_join_is_by_row_and_leaves_out_what_only_one_side_has_or_judged_otherwise():
    a = judged([5, 1, 9, 3], [True, False, True, True], [[5], [1, 7], [9], [3]])
    b = judged([1, 3, 5, 8], [True, True, False, False], [[7, 1], [4], [5], [8]])
    pairs = paired(a, b)
    assert (pairs.right_a.tolist(), pairs.right_b.tolist()) == ([False, True], [True, False])  # rows 1 and 5
    assert (pairs.alone, pairs.differing) == (2, 1)


@given(st.lists(st.integers(0, 30), unique=True), st.lists(st.integers(0, 30), unique=True), st.randoms())
def test_the_join_does_not_depend_on_order_or_side(rows_a, rows_b, random):
    def side(rows):
        return judged(rows, [row % 3 == 0 for row in rows], [[row] for row in rows])

    pairs, back = paired(side(rows_a), side(rows_b)), paired(side(rows_b), side(sorted(rows_a)))
    both = sorted(set(rows_a) & set(rows_b))
    assert pairs.right_a.tolist() == pairs.right_b.tolist() == [row % 3 == 0 for row in both]
    assert back.right_b.tolist() == pairs.right_a.tolist()
    assert pairs.alone == back.alone == len(set(rows_a) ^ set(rows_b))
    assert pairs.differing == 0


KEY = ("linear", "pictures", "top1")
CLIP, XCLR = ("clip", "pairs"), ("xclr", "captions")


def score(method, seed, value, key=KEY, n=40):
    names = dict(zip(("suite", "split", "metric"), key, strict=True))
    return names | {
        "run": "r", "method": method[0], "dataset": "emoji", "graph": method[1], "seed": seed,
        "checkpoint": f"{method[0]} {seed}", "step": 1, "value": value, "n": n, "ci95": 0.1, "ci_kind": "bootstrap",
    }  # fmt: skip


class Judgements:
    """Scores of methods on one split, and the tables of their answers."""

    def __init__(self, folder):
        self.folder, self.rows, self.answers = folder, [], {}

    def add(self, method, right, *, seed=0, targets=None, rows=None, key=KEY, value=None):
        rows = list(range(len(right))) if rows is None else rows
        targets = [[row % 4] for row in rows] if targets is None else targets
        known = [each for each in right if each is not None]
        self.rows.append(score(method, seed, np.mean(known) if value is None else value, key, len(known)))
        columns = [rows, [key[1]] * len(rows), targets, [0] * len(rows), right]
        columns = [pa.array(each, field.type) for each, field in zip(columns, SCHEMA, strict=True)]
        table = pa.Table.from_arrays(columns, schema=SCHEMA)
        path = self.folder / f"{method[0]} {seed} {key[0]}.parquet"
        schema.write(table, path, SCHEMA, ABOUT)
        self.answers[f"{method[0]} {seed}", key[0]] = path
        return self

    def distances(self, base=CLIP):
        return distances_of(pa.Table.from_pylist(self.rows, schema.SCORES), base, self.answers)


SCHEMA = schema.predictions(pa.int64())


@pytest.fixture
def judgements(tmp_path):
    return Judgements(tmp_path)


A, B = (each.tolist() for each in table_of(20, 9, 1, 10))


def test_with_one_seed_the_answers_of_both_are_paired(judgements):
    (found,) = judgements.add(CLIP, B).add(XCLR, A).distances()
    _, half = paired_bootstrap(np.array(A), np.array(B), resamples=10_000, seed=0)
    assert found == Distance(*XCLR, *KEY, found.difference, half, "paired-bootstrap", by_hand(9, 1), 40, 1)
    assert found.difference == pytest.approx(0.2)
    assert "note" not in found.row()
    (back,) = judgements.distances(XCLR)
    assert (back.difference, back.p) == (-found.difference, found.p)


@pytest.mark.parametrize(
    ("seeds", "kind", "paired_ones"), [(1, "paired-bootstrap", 1), (2, "none", 0), (3, "t-seeds", 0)]
)
def test_seeds_decide_which_interval_there_is(judgements, seeds, kind, paired_ones):
    for seed in range(seeds):
        judgements.add(CLIP, B, seed=seed).add(XCLR, A, seed=seed)
    (found,) = judgements.distances()
    assert (found.ci_kind, found.seeds) == (kind, seeds)
    assert (found.p is not None) == paired_ones


def test_where_one_distance_is_over_seeds_no_other_is_paired(judgements):
    for seed in range(3):
        judgements.add(CLIP, B, seed=seed).add(XCLR, A, seed=seed)
    judgements.add(("simclr", "augmentation"), A)
    found = judgements.distances()
    assert {each.method: each.ci_kind for each in found} == {"xclr": "t-seeds", "simclr": "none"}
    assert all(each.p is None for each in found)


def test_the_seed_that_both_have_is_paired(judgements):
    judgements.add(CLIP, B, seed=1).add(CLIP, A, seed=2).add(XCLR, A, seed=1)
    (found,) = judgements.distances()
    assert (found.p, found.seeds) == (by_hand(9, 1), 1)


@pytest.mark.parametrize("key", [("imagenet9", "gap", "gap"), ("linear", "pictures", "per_class")])
def test_what_is_not_a_share_of_right_answers_is_not_paired(judgements, key):
    (found,) = judgements.add(CLIP, B, key=key).add(XCLR, A, key=key).distances()
    assert (found.ci95, found.ci_kind, found.p, found.note) == (None, "none", None, "")


def test_answers_that_are_neither_right_nor_wrong_do_not_count(judgements):
    (found,) = judgements.add(CLIP, [*B, None]).add(XCLR, [*A, None]).distances()
    assert (found.n, found.p, found.note) == (40, by_hand(9, 1), "")


def test_a_score_of_several_draws_is_not_paired(judgements):
    judgements.add(CLIP, B).add(XCLR, A)
    for row in judgements.rows:
        row["split"] = "1-percent"
    (found,) = judgements.distances()
    assert (found.ci_kind, found.p, found.note) == ("none", None, "")


def test_rows_with_other_targets_and_rows_of_one_side_are_left_out_and_told(judgements):
    targets = [[row % 4] for row in range(40)]
    targets[0] = [9]
    (found,) = judgements.add(CLIP, B).add(XCLR, [*A, True], targets=[*targets, [1]]).distances()
    assert found.n == 39
    assert found.difference == pytest.approx(np.mean(A[1:]) - np.mean(B[1:]))
    assert found.note == (
        "linear pictures: left out 1 answers that one side alone has; "
        "linear pictures: left out 1 answers that have other targets on either side"
    )


@pytest.mark.parametrize("other", [{"targets": [[row % 3 + 5] for row in range(40)]}, {"rows": range(100, 140)}])
def test_other_pictures_are_not_paired(judgements, other):
    (found,) = judgements.add(CLIP, B).add(XCLR, A, **other).distances()
    assert (found.ci_kind, found.p, found.n) == ("none", None, 40)
    assert found.note == "linear pictures: no interval, the two judged other pictures"


def test_answers_that_are_gone_leave_a_distance_without_an_interval(judgements):
    judgements.add(CLIP, B).add(XCLR, A)
    del judgements.answers["xclr 0", "linear"]
    (found,) = judgements.distances()
    assert (found.difference, found.ci_kind) == (pytest.approx(0.2), "none")
    assert found.note == "no interval where the answers of xclr are not in the store"


def test_answers_of_another_version_are_not_read(judgements):
    judgements.add(CLIP, B).add(XCLR, A)
    old = pa.schema([schema.required("row_id", pa.int64()), schema.required("split", pa.string())])
    schema.write(
        pa.table({"row_id": [1], "split": ["pictures"]}, old), judgements.answers["clip 0", "linear"], old, ABOUT
    )
    (found,) = judgements.distances()
    assert found.note == "no interval where the answers of clip were written by another version"


def test_answers_that_are_not_those_of_the_score_are_not_paired(judgements):
    (found,) = judgements.add(CLIP, B).add(XCLR, A, value=0.9).distances()
    assert (found.difference, found.p) == (pytest.approx(0.9 - np.mean(B)), None)
    assert found.note == "no interval where the answers of xclr do not add up to the score"


@given(ANSWERS)
@settings(max_examples=20, deadline=None)
def test_a_paired_distance_is_the_difference_of_the_scores(tmp_path_factory, answers):
    assume(len(answers) > 1)
    a, b = ([bool(each) for each in side] for side in zip(*answers, strict=True))
    (found,) = Judgements(tmp_path_factory.mktemp("pairs")).add(CLIP, b).add(XCLR, a).distances()
    assert found.difference == pytest.approx(np.mean(a) - np.mean(b))
    assert found.p == mcnemar(np.array(a), np.array(b))
