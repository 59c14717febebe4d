"""Retrieval between pictures and captions: ranks, captions that stand twice, ties."""

from dataclasses import replace
from itertools import permutations
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, Labels, Ragged
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites import retrieval as module
from xclr.evaluation.suites.retrieval import SAMPLE, among_best, recalls, retrieval_suite, spaced

CONFIG = SuiteConfig(suite="retrieval", bootstrap=100, seed=0)
SPLITS, DEPTHS = ("image-to-text", "text-to-image"), (1, 5, 10)


def given_by(pictures, texts, group=None, rows=None):
    """Projections of n pictures and their captions."""
    rows = np.arange(len(pictures)) if rows is None else rows
    known = np.zeros(0, np.int64)
    if group is not None:
        known = np.full(rows.max() + 1, -1)
        known[rows] = group
    features = Features(
        FeatureSet(rows, np.asarray(pictures, np.float32)), texts=FeatureSet(rows, np.asarray(texts, np.float32))
    )
    splits = np.full(rows.max() + 1, "val")
    return features, Labels(splits, Ragged.single(np.full(len(splits), -1)), group=known)


def values(result):
    return {(each.split, each.metric): each.value for each in result.scores}


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def random_case(n=80, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(n, 8))
    return unit(texts + noise * rng.normal(size=(n, 8))), unit(texts)


def test_a_caption_on_its_picture_is_found_first():
    _, texts = random_case()
    result = retrieval_suite(*given_by(texts, texts), CONFIG)
    assert [(each.split, each.metric) for each in result.scores] == [
        (split, f"recall{depth}") for split in SPLITS for depth in DEPTHS
    ]
    assert set(values(result).values()) == {1.0}
    assert all(each.n == 80 and each.suite == "retrieval" and each.ci_kind == "bootstrap" for each in result.scores)


def test_recalls_are_scikit_learns_top_k_accuracies():
    pictures, texts = random_case(noise=1.5)
    found = values(retrieval_suite(*given_by(pictures, texts), CONFIG))
    for split, cosines in zip(SPLITS, (pictures @ texts.T, texts @ pictures.T), strict=True):
        for depth in DEPTHS:
            expected = top_k_accuracy_score(np.arange(80), cosines, k=depth)
            assert found[split, f"recall{depth}"] == pytest.approx(expected)
            assert 0.1 < expected < 1
    assert found["image-to-text", "recall1"] != found["text-to-image", "recall1"]


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_with_several_captions_a_picture_recalls_are_those_of_clip_benchmark(noise):
    """Its formula: the share of queries one of whose positives is among the best k; a picture counts once."""
    rng = np.random.default_rng(3)
    of = np.sort(rng.permutation(np.repeat(np.arange(30), 5)))  # the picture of each of 150 captions
    pictures = unit(rng.normal(size=(30, 8)))
    texts = unit(pictures[of] + noise * rng.normal(size=(150, 8)))
    features, labels = given_by(pictures[of], texts)
    first = np.array([np.flatnonzero(of == each)[0] for each in range(30)])
    result = retrieval_suite(features, replace(labels, attribute=first[of]), CONFIG)
    scores = texts @ pictures.T  # [150, 30]
    positive = of[:, None] == np.arange(30)
    for split, cosines, pairs in (("text-to-image", scores, positive), ("image-to-text", scores.T, positive.T)):
        for depth in DEPTHS:
            best = np.argsort(-cosines, axis=1)[:, :depth]
            expected = np.take_along_axis(pairs, best, 1).any(1).mean()
            assert values(result)[split, f"recall{depth}"] == pytest.approx(expected)
    assert {(each.split, each.n) for each in result.scores} == {("image-to-text", 30), ("text-to-image", 150)}
    answers = result.predictions.to_pandas()
    assert sorted(answers[answers.split == "image-to-text"].target[0]) == list(range(5))
    if not noise:
        assert set(values(result).values()) == {1.0}


def test_captions_that_stand_twice_are_right_for_each_other():
    pictures, texts = random_case(n=60, noise=1.2)
    group = np.arange(60) // 3  # rows 0 to 2 have one caption, and so on
    texts = texts[group * 3]
    found = values(retrieval_suite(*given_by(pictures, texts, group), CONFIG))
    for split, cosines in zip(SPLITS, (pictures @ texts.T, texts @ pictures.T), strict=True):
        for depth in DEPTHS:
            best = np.argsort(-cosines, axis=1, kind="stable")[:, :depth]
            hits = [(group[row] == group[line]).any() for line, row in enumerate(best)]
            assert found[split, f"recall{depth}"] == pytest.approx(np.mean(hits)), (split, depth)
    alone = values(retrieval_suite(*given_by(pictures, texts, np.full(60, -1)), CONFIG))
    assert alone["text-to-image", "recall1"] < found["text-to-image", "recall1"]
    assert alone["image-to-text", "recall1"] == pytest.approx(found["image-to-text", "recall1"] / 3)


def test_no_groups_are_as_rows_without_a_group():
    pictures, texts = random_case()
    without, none = (retrieval_suite(*given_by(pictures, texts, each), CONFIG) for each in (None, np.full(80, -1)))
    assert without.scores == none.scores and without.predictions.equals(none.predictions)


def test_towers_that_give_one_vector_are_at_chance():
    ones = np.ones((40, 4)) / 2
    found = values(retrieval_suite(*given_by(ones, ones), CONFIG))
    assert found == {(split, f"recall{depth}"): pytest.approx(depth / 40) for split in SPLITS for depth in DEPTHS}


def test_a_wrong_answer_as_near_as_the_right_one_halves_the_first_place():
    axes = np.eye(12)
    texts = axes.copy()
    texts[1] = axes[0]  # caption 1 lies on caption 0, and on picture 0
    found, _ = recalls(
        torch.eye(12), torch.from_numpy(texts).float(), lambda part: torch.eye(12, dtype=torch.bool)[part]
    )
    assert found[0].tolist() == [0.5, 1, 1]
    assert found[2].tolist() == [1, 1, 1]
    assert found[1].tolist() == pytest.approx([1 / 12, 5 / 12, 10 / 12])  # all captions are orthogonal to picture 1


@pytest.mark.parametrize("right", [1, 2, 5])
def test_ties_count_as_often_as_a_random_order_would_have_it(right):
    for above in range(12):
        for wrong in range(14):
            found = among_best(*(np.array([float(each)]) for each in (above, wrong, right)))[0]
            for depth, chance in zip(DEPTHS, found, strict=True):
                left = max(0, depth - above)
                missed = comb(wrong, left) / comb(wrong + right, left) if left <= wrong else 0
                assert chance == pytest.approx(1 - missed, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n=st.integers(2, 6))
def test_recalls_are_the_mean_over_every_order_of_the_candidates(data, n):
    """By brute force, on vectors along the axes, whose products are exact so that ties are ties."""
    axis = st.lists(st.integers(0, 2), min_size=n, max_size=n)
    eye = np.eye(3)
    queries, candidates = eye[data.draw(axis)], eye[data.draw(axis)]
    same = np.array(data.draw(axis))
    hits = []
    for drawn in permutations(range(n)):
        order = np.array(drawn)
        ranked = order[np.argsort(-(queries @ candidates[order].T), axis=1, kind="stable")]
        right = same[ranked] == same[:, None]
        hits.append(np.stack([right[:, :depth].any(1) for depth in DEPTHS], 1))
    found, _ = recalls(
        torch.from_numpy(queries), torch.from_numpy(candidates), lambda part: torch.from_numpy(same[part, None] == same)
    )
    np.testing.assert_allclose(found, np.mean(hits, 0), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(25)), groups=st.integers(1, 25), coarse=st.booleans())
def test_the_order_of_the_rows_changes_no_score(seed, order, groups, coarse):
    pictures, texts = random_case(n=25, seed=seed)
    if coarse:
        pictures, texts = (np.eye(8)[np.abs(each).argmax(1)] for each in (pictures, texts))
    group, order = np.random.default_rng(seed).integers(-1, groups, 25), np.array(order)
    found = values(retrieval_suite(*given_by(pictures, texts, group), CONFIG))
    shuffled = values(retrieval_suite(*given_by(pictures[order], texts[order], group[order]), CONFIG))
    assert shuffled == pytest.approx(found)
    for split in SPLITS:
        rising = [found[split, f"recall{depth}"] for depth in DEPTHS]
        assert 0 <= rising[0] <= rising[1] <= rising[2] <= 1


def test_block_by_block_the_scores_are_the_same(monkeypatch):
    case = given_by(*random_case(), np.arange(80) // 2)
    whole = retrieval_suite(*case, CONFIG)
    monkeypatch.setattr(module, "BLOCK", 7)
    parts = retrieval_suite(*case, CONFIG)
    assert values(parts) == pytest.approx(values(whole)) and parts.predictions.equals(whole.predictions)


def test_predictions_name_the_row_of_the_best_answer_and_all_right_ones():
    pictures, texts = random_case(n=30, noise=0.9)
    rows, group = np.arange(30) * 3 + 5, np.where(np.arange(30) < 4, 7, -1)
    result = retrieval_suite(*given_by(pictures, texts, group, rows), CONFIG)
    table = result.predictions.to_pylist()
    assert [each["row_id"] for each in table] == [*rows, *rows]
    assert [each["split"] for each in table] == [split for split in SPLITS for _ in rows]
    assert [each["prediction"] for each in table[:30]] == rows[(pictures @ texts.T).argmax(1)].tolist()
    assert [each["prediction"] for each in table[30:]] == rows[(texts @ pictures.T).argmax(1)].tolist()
    assert table[2]["target"] == rows[:4].tolist() and table[9]["target"] == [rows[9]]
    assert all(each["right"] == (each["prediction"] in each["target"]) for each in table)
    assert np.mean([each["right"] for each in table[:30]]) == pytest.approx(values(result)["image-to-text", "recall1"])


def test_many_pictures_are_sampled_at_even_distances(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 10)
    pictures, texts = random_case(n=25)
    result = retrieval_suite(*given_by(pictures, texts), CONFIG)
    rows = result.predictions["row_id"].to_pylist()[:10]
    assert rows == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]
    assert {each.n for each in result.scores} == {10}
    alone = retrieval_suite(*given_by(pictures[rows], texts[rows]), CONFIG)
    assert values(alone) == pytest.approx(values(result))


@settings(max_examples=50, deadline=None)
@given(n=st.integers(0, 20_000), count=st.sampled_from([1, 7, SAMPLE]))
def test_spaced_positions_are_each_there_once(n, count):
    found = spaced(n, count)
    assert len(found) == min(n, count) and (np.diff(found) > 0).all()
    assert not n or (found[0] == 0 and found[-1] < n)
    assert len(found) < 2 or np.ptp(np.diff(found)) <= 1


def test_what_does_not_belong_together_is_refused():
    features, labels = given_by(*random_case(n=10))
    other = FeatureSet(features.texts.rows + 1, features.texts.vectors)
    empty = FeatureSet(np.zeros(0, np.int64), np.zeros((0, 8), np.float32))
    for wrong in (Features(features.pictures), Features(features.pictures, texts=other), Features(empty, texts=empty)):
        with pytest.raises(DataError, match="retrieval needs a caption for each picture"):
            retrieval_suite(wrong, labels, CONFIG)


def test_projections_that_are_not_finite_are_refused():
    pictures, texts = random_case(n=10)
    pictures[3, 2] = np.nan
    for case in ((pictures, texts), (texts, pictures)):
        with pytest.raises(DataError, match="not finite"):
            retrieval_suite(*given_by(*case), CONFIG)
