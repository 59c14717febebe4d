"""The share of the training pictures that a pretraining sees: nested, drawn by its seed, the same on every rank."""

import hashlib
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.home import RECIPE, TRAIN, training_data
from tests.kit.stages import no_progress
from xclr.errors import DataError
from xclr.images import usable_rows
from xclr.recipe import RandomConfig, SimCLRConfig, TrainConfig
from xclr.training import Rank, open_batches, pretrain
from xclr.training import stages as training_stages
from xclr.training.batches import training_rows
from xclr.training.subset import nested, told

SEEDS = st.integers(0, 2**32)
FRACTIONS = st.floats(0, 1, exclude_min=True)
ROWS = st.sets(st.integers(0, 2**40), max_size=200).map(lambda rows: np.array(sorted(rows), np.int64))


def drawn(rows, fraction, seed):
    return nested(rows, TrainConfig(fraction=fraction).seen(len(rows)), seed)


def opened(home, seed=0, **changes):
    config = TRAIN.model_copy(update={"workers": 0} | changes)
    return open_batches(home.paths["captions"], home.paths["images"], config, seed)


def trained(home, out, objective=None, **changes):
    """The stats of a pretraining of one epoch."""
    out.mkdir()
    recipe = RECIPE.model_copy(update={"train": TRAIN.model_copy(update={"epochs": 1} | changes)})
    stage = training_stages.pretrain(recipe, objective or SimCLRConfig(), 0, training_data(home.artifacts))
    return pretrain.run(stage, out, no_progress).stats


@given(ROWS, SEEDS, FRACTIONS, FRACTIONS)
def test_a_smaller_shares_rows_are_among_those_of_a_larger_one(rows, seed, one, other):
    few, many = (drawn(rows, fraction, seed) for fraction in sorted((one, other)))
    assert set(few.tolist()) <= set(many.tolist()) <= set(rows.tolist())


@given(ROWS, SEEDS, FRACTIONS)
def test_a_share_has_its_size_and_its_rows_are_sorted_and_distinct(rows, seed, fraction):
    found = drawn(rows, fraction, seed)
    assert found.dtype == np.int64 and abs(len(found) - fraction * len(rows)) <= 0.5
    assert np.all(np.diff(found) > 0)


@given(ROWS, SEEDS)
def test_the_whole_share_is_all_rows_in_their_order(rows, seed):
    assert np.array_equal(drawn(rows, 1.0, seed), rows)


@given(ROWS, SEEDS, st.integers(0, 200))
def test_a_row_that_is_lost_makes_room_for_one_other(rows, seed, place):
    """Whether a row is drawn depends on its id and how many come before it, not on its position."""
    found = nested(rows, len(rows) // 2, seed)
    without = np.delete(rows, place % max(len(rows), 1)) if len(rows) else rows
    again = nested(without, len(rows) // 2, seed)
    assert len(set(found.tolist()) - set(again.tolist())) <= 1


def test_seeds_draw_unrelated_shares():
    rows = np.arange(10_000)
    shares = [set(drawn(rows, 0.3, seed).tolist()) for seed in range(4)]
    for index, share in enumerate(shares):
        assert all(len(share & other) / 3000 == pytest.approx(0.3, abs=0.04) for other in shares[:index])


def test_a_share_is_spread_over_the_rows():
    found = drawn(np.arange(10_000), 0.2, 0)
    assert np.histogram(found, bins=10, range=(0, 10_000))[0] == pytest.approx(200, abs=50)


def test_the_stages_numbers_name_a_set_of_rows():
    rows = np.array([3, 5, 2**40], np.int64)
    spelled = hashlib.blake2b(struct.pack("<3q", *rows.tolist()), digest_size=16).hexdigest()
    assert told(rows) == told(rows[::-1]) == {"train_pictures": 3, "subset": spelled}
    assert told(rows[:2])["subset"] != spelled


@pytest.mark.parametrize("views", ["stickers", "simclr"])
def test_batches_hold_the_shares_rows_and_all_of_them_at_1(home, views):
    usable = usable_rows(home.paths["images"])
    whole = usable[home.splits[usable] == "train"]
    assert opened(home, views=views).rows.tolist() == whole.tolist()
    half = opened(home, views=views, fraction=0.5)
    assert half.rows.tolist() == drawn(whole, 0.5, 0).tolist()
    assert half.steps_per_epoch == len(half.rows) // TRAIN.batch_size
    assert set(half.rows.tolist()) != set(opened(home, seed=1, views=views, fraction=0.5).rows.tolist())


@pytest.mark.parametrize("views", ["stickers", "simclr"])
def test_the_ranks_of_any_world_share_the_batches_of_one(home, views):
    def epoch(rank, world):
        batches = opened(home, views=views, fraction=0.5)
        place = Rank(rank, world, torch.device("cpu"))
        return [batch.rows for batch in batches.stream(0, batches.steps_per_epoch, place)]

    alone = epoch(0, 1)
    assert set(torch.cat(alone).tolist()) <= set(opened(home, views=views, fraction=0.5).rows.tolist())
    for world in (2, 4):
        shares = zip(*(epoch(rank, world) for rank in range(world)), strict=True)
        assert all(torch.equal(torch.cat(parts), one) for parts, one in zip(shares, alone, strict=True))


def test_a_share_smaller_than_a_batch_is_refused_with_what_is_left(home):
    trained = int((home.splits == "train").sum())
    left = round(0.05 * trained)
    with pytest.raises(DataError) as caught:
        opened(home, fraction=0.05)
    assert caught.value.message == (
        f"{left} usable training pictures that train.fraction 0.05 leaves of {trained} do not fill a batch of 32"
    )
    assert caught.value.remedy == f"--set train.batch_size={left // 2}, or a larger train.fraction"


def test_a_pretraining_tells_which_pictures_it_saw(home, tmp_path):
    stats = {fraction: trained(home, tmp_path / str(fraction), fraction=fraction) for fraction in (0.5, 1.0)}
    rows = {
        fraction: training_rows(
            home.paths["captions"], home.paths["images"], TRAIN.model_copy(update={"fraction": fraction}), 0
        )
        for fraction in stats
    }
    assert set(rows[0.5].tolist()) < set(rows[1.0].tolist())
    for fraction, found in stats.items():
        assert {name: found[name] for name in ("train_pictures", "subset")} == told(rows[fraction])
        assert found["step"] == len(rows[fraction]) // TRAIN.batch_size


def test_the_untrained_backbone_saw_none(home, tmp_path):
    assert trained(home, tmp_path / "random", RandomConfig(), fraction=0.5) == {"step": 0}
