"""Nearest pictures by cosine, and which pictures are asked about."""

from __future__ import annotations

import numpy as np
import pytest

from xclr.evaluation import FeatureSet
from xclr.evaluation.neighbours import choose_queries, load_pool, nearest


def by_hand(pool, query, k):
    unit = pool.vectors / np.linalg.norm(pool.vectors, axis=1, keepdims=True)
    own = int(np.flatnonzero(pool.rows == query)[0])
    cosines = unit @ unit[own]
    order = [each for each in np.lexsort((pool.rows, -cosines)) if each != own][:k]
    return pool.rows[order], cosines[order]


@pytest.fixture
def pool():
    rng = np.random.default_rng(0)
    return FeatureSet(np.sort(rng.choice(500, 60, replace=False)), rng.normal(size=(60, 5)).astype(np.float32))


def test_neighbours_are_those_of_a_full_sort_by_cosine(pool):
    queries = pool.rows[[3, 40, 59]]
    found = nearest(pool, queries, 6)
    for query, rows, cosines in zip(queries, *found, strict=True):
        expected_rows, expected = by_hand(pool, query, 6)
        assert rows.tolist() == expected_rows.tolist()
        np.testing.assert_allclose(cosines, expected, atol=1e-6)


def test_the_length_of_a_feature_does_not_matter(pool):
    scaled = FeatureSet(pool.rows, pool.vectors * np.linspace(0.1, 10, 60, dtype=np.float32)[:, None])
    assert nearest(pool, pool.rows[:5], 4).rows.tolist() == nearest(scaled, pool.rows[:5], 4).rows.tolist()


def test_a_picture_is_not_its_own_neighbour_even_among_equals():
    pool = FeatureSet(np.array([2, 5, 7, 9]), np.ones((4, 3), np.float32))
    assert nearest(pool, np.array([2, 9]), 2).rows.tolist() == [[5, 7], [2, 5]]


def test_a_small_pool_has_fewer_neighbours_and_a_zero_feature_is_no_error():
    pool = FeatureSet(np.array([0, 1, 2]), np.array([[1, 0], [0, 0], [2, 0]], np.float32))
    found = nearest(pool, np.array([0]), 6)
    assert found.rows.tolist() == [[2, 1]]
    assert found.cosines.tolist() == [[1, 0]]


def test_questions_come_from_a_held_out_split_one_a_class():
    split = np.array(["train"] * 20 + ["concepts"] * 5 + ["pictures"] * 40)
    target = np.arange(65) % 8
    rows = np.arange(1, 65)
    name, queries = choose_queries(rows, split, target, 4)
    assert name == "pictures"
    assert (split[queries] == "pictures").all()
    assert len(set(target[queries])) == 4
    assert choose_queries(rows, split, target, 4)[1].tolist() == queries.tolist()
    assert choose_queries(rows[:24], split, target, 4)[0] == "concepts"


def test_few_classes_are_asked_about_in_turn():
    split, target = np.array(["pictures"] * 9), np.array([0, 0, 0, 0, 1, 1, -1, -1, 1])
    _, queries = choose_queries(np.arange(9), split, target, 5)
    assert queries.tolist() == [0, 4, 1, 5, 2]


def test_without_classes_or_held_out_pictures_rows_are_spaced_over_the_last():
    name, queries = choose_queries(np.arange(1000), np.array(["train"] * 1000), np.full(1000, -1), 3)
    assert name == ""
    assert queries.tolist() == [800, 900, 999]
    assert choose_queries(np.arange(2), np.array(["train"] * 2), np.full(2, -1), 3)[1].tolist() == [0, 1]


def test_a_pool_is_bounded_and_holds_the_questions(tmp_path):
    rows = np.arange(0, 2000, 2)
    np.save(tmp_path / "rows.npy", rows)
    np.save(tmp_path / "vectors.npy", rows[:, None].astype(np.float16))
    pool = load_pool(tmp_path, np.array([2, 1996]), limit=11)
    assert {2, 1996} <= set(pool.rows.tolist())
    assert len(pool.rows) <= 13
    assert pool.vectors[:, 0].tolist() == pool.rows.tolist()
    assert len(load_pool(tmp_path, np.array([2])).rows) == 1000
