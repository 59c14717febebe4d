"""Which caption of a picture an epoch shows: a pure function of seed, epoch and picture."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from xclr.training.captions import CaptionsOf


def pictures(numbers, *, in_turn):
    """Pictures with so many captions each, whose rows lie as a table's might."""
    rows = np.random.default_rng(0).permutation(2 * sum(numbers))[: sum(numbers)].astype(np.int64)
    return CaptionsOf(np.concatenate([[0], np.cumsum(numbers)]).astype(np.int64), rows, in_turn)


NUMBERS = st.lists(st.integers(1, 6), min_size=1, max_size=20)


@given(NUMBERS, st.integers(0, 99), st.integers(0, 3))
def test_in_turn_each_caption_comes_once_before_one_comes_again(numbers, seed, turn):
    captions = pictures(numbers, in_turn=True)
    for position, number in enumerate(numbers):
        here = np.array([position])
        shown = [captions.drawn(seed, epoch, here).item() for epoch in range(turn * number, (turn + 1) * number)]
        assert sorted(shown) == sorted(captions.rows[captions.offsets[position] : captions.offsets[position + 1]])


@given(NUMBERS, st.booleans(), st.integers(0, 9), st.randoms())
def test_the_others_of_a_batch_change_nothing(numbers, in_turn, epoch, source):
    captions = pictures(numbers, in_turn=in_turn)
    every = captions.drawn(3, epoch, np.arange(len(numbers)))
    some = np.array(source.sample(range(len(numbers)), source.randint(1, len(numbers))))
    assert torch.equal(captions.drawn(3, epoch, some), every[some])


def test_turns_and_seeds_have_orders_of_their_own():
    captions, position = pictures([5] * 40, in_turn=True), np.arange(40)
    orders = [torch.stack([captions.drawn(seed, turn * 5 + e, position) for e in range(5)]) for seed, turn in
              ((0, 0), (0, 1), (1, 0))]  # fmt: skip
    assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])
    first = orders[0][0].numpy() == captions.rows[::5]
    assert 2 <= first.sum() <= 16, "about a fifth begin with their first caption"
