"""Which cells are weak at a rung, whatever the order in which they come."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from xclr.sweep.halving import FEWEST, RUNGS, Look, Weakness, find_weak

VALUES = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=20)


def cells(values, share=1.0, every=0.125):
    """Cells that were looked at every so often up to a share, each at its one value."""
    shares = [every * place for place in range(1, round(share / every) + 1)]
    return {place: [Look(each, value) for each in shares] for place, value in enumerate(values)}


def test_half_goes_on_at_each_rung():
    weak = find_weak(cells([1, 2, 3, 4, 5, 6, 7, 8]))
    assert weak == {
        **{place: Weakness(1 / 8, place + 1, 5, 8) for place in range(4)},
        **{place: Weakness(1 / 4, place + 1, 7, 4) for place in (4, 5)},
    }, "two are too few for the last rung"


def test_few_and_equal_cells_all_go_on():
    assert find_weak(cells([1, 2, 3])) == {} == find_weak(cells([5] * 20))
    assert find_weak({}) == {} == find_weak({0: []})


def test_a_cell_comes_to_a_rung_with_its_first_look_there_or_later():
    late = {place: [Look(0.05, 9 - place), Look(0.2, place), Look(0.6, 9 - place)] for place in range(4)}
    assert set(find_weak(late)) == {0, 1}
    assert find_weak({place: own[:1] for place, own in late.items()}) == {}


@given(VALUES, st.randoms())
def test_the_order_of_cells_changes_nothing(values, source):
    looks = cells(values)
    shuffled = list(looks.items())
    source.shuffle(shuffled)
    assert find_weak(dict(shuffled)) == find_weak(looks)


@given(VALUES)
def test_who_goes_on_is_at_least_as_good_as_who_stops_and_the_best_is_never_weak(values):
    weak = find_weak(cells(values))
    first = {place for place, why in weak.items() if why.rung == RUNGS[0]}
    kept = [value for place, value in enumerate(values) if place not in first]
    if len(values) < FEWEST:
        assert not weak
    else:
        assert len(kept) >= math.ceil(len(values) / 2)
        assert all(values[place] < min(kept) for place in first)
    assert not any(values[place] == max(values) for place in weak)


@given(VALUES, st.integers(0, 19), st.integers(1, 8))
def test_what_comes_later_makes_nobody_weak_who_has_ended_better(values, place, steps):
    """A cell behind the others changes nothing at rungs that it has not come to."""
    looks = cells(values)
    own = place % len(values)
    looks[own] = looks[own][:steps]
    weak = find_weak(looks)
    assert own not in weak or weak[own].rung <= steps / 8
