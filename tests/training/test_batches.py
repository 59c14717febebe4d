"""Batches of real pictures: the same on any number of ranks."""

import dataclasses

import pytest
import torch

from tests.kit.home import TRAIN
from xclr import schema
from xclr.errors import DataError
from xclr.images import read_pictures
from xclr.training import PictureBatches, Rank
from xclr.training import batches as batches_module
from xclr.training.batches import source_side
from xclr.training.model import memory_format
from xclr.training.views import LUMA


def opened(home, config=TRAIN, seed=0):
    return PictureBatches.open(home.paths["captions"], home.paths["images"], config, seed)


def union(batches, step, world):
    """The shares of all ranks in canonical order: first views in rank order, then second views."""
    shares = [batches.batch(step, rank, world) for rank in range(world)]
    views = torch.stack([share.views.unflatten(0, (2, -1)) for share in shares], dim=1)
    return torch.cat([share.rows for share in shares]), views.flatten(0, 2)


def test_a_batch_has_two_views_of_each_sample(batches):
    batch = batches.batch(0, 0, 1)
    assert batch.rows.shape == (32,) and batch.views.shape == (64, 3, 16, 16)
    assert batch.views.is_contiguous(memory_format=memory_format(TRAIN))
    first, second = batch.views.chunk(2)
    assert (first - second).abs().amax(dim=(1, 2, 3)).min() > 0


@pytest.mark.parametrize("world", [2, 4])
def test_all_ranks_together_have_the_rows_and_bitwise_the_views_of_one(batches, world):
    for step in (0, 1, batches.steps_per_epoch, 3 * batches.steps_per_epoch - 1):
        rows, views = union(batches, step, 1)
        shared_rows, shared_views = union(batches, step, world)
        assert torch.equal(shared_rows, rows) and torch.equal(shared_views, views), f"step {step}"


@pytest.mark.parametrize(("batch_size", "world"), [(6, 2), (12, 4), (4, 4)])
def test_ranks_with_few_samples_see_the_same_views_too(batches, batch_size, world):
    """Matrix kernels round differently for shares that do not fill a vector register."""
    small = dataclasses.replace(batches, config=TRAIN.model_copy(update={"batch_size": batch_size}))
    for step in range(3):
        assert torch.equal(union(small, step, world)[1], union(small, step, 1)[1]), f"step {step}"


def test_every_rank_has_an_equal_share_and_no_row_twice(batches):
    shares = [batches.batch(2, rank, 4).rows for rank in range(4)]
    assert [len(share) for share in shares] == [8, 8, 8, 8]
    assert len(torch.cat(shares).unique()) == 32


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_visits_training_rows_at_most_once(batches, epoch):
    first = epoch * batches.steps_per_epoch
    visited = torch.cat([batches.batch(first + step, 0, 1).rows for step in range(batches.steps_per_epoch)])
    assert len(visited) == batches.steps_per_epoch * batches.batch_size
    assert len(visited.unique()) == len(visited)
    assert len(batches.rows) - batches.batch_size < len(visited) <= len(batches.rows)


def test_another_epoch_has_another_order_and_other_views_of_the_same_pictures(batches):
    first, second = (batches.batch(epoch * batches.steps_per_epoch, 0, 1) for epoch in range(2))
    assert not torch.equal(first.rows, second.rows)
    both = set(first.rows.tolist()) & set(second.rows.tolist())
    assert both
    for row in both:
        a, b = (each.views[each.rows.tolist().index(row)] for each in (first, second))
        assert not torch.equal(a, b)


def test_only_rows_of_the_split_train_are_used(home, batches):
    assert set(home.splits[batches.rows.numpy()]) == {"train"}
    assert set(home.splits) > {"train"}
    assert len(batches.rows) == (home.splits == "train").sum()


def test_a_row_keeps_its_own_picture_and_group(home, batches):
    """Read one by one from the shards, in another order than they were opened in."""
    step_rows = batches.batch(0, 0, 1).rows[:5]
    places = [batches.rows.tolist().index(row) for row in step_rows.tolist()]
    pictures = read_pictures(home.paths["images"], step_rows.numpy(), source_side(TRAIN))
    assert torch.equal(batches.pictures[places], pictures)
    annotations = schema.read(home.paths["captions"] / "annotations.parquet", schema.ANNOTATIONS)
    assert batches.groups.tolist() == annotations["group"].to_numpy()[batches.rows.numpy()].tolist()


def test_the_views_show_the_batchs_rows(home):
    """Opaque and undistorted pictures are told apart by their mean luma, which views of the right row come close to."""
    config = TRAIN.model_copy(update={"min_crop": 1.0, "background": 0.0})
    batches = opened(home, config)
    batch = batches.batch(0, 0, 1)
    places = torch.tensor([batches.rows.tolist().index(row) for row in batch.rows.tolist()])
    alpha = batches.pictures[places, 3].float().mean(dim=(1, 2)) / 255
    colour = (batches.pictures[places, :3] / 255 * (batches.pictures[places, 3:] / 255)).mean(dim=(2, 3))
    luma = (colour / alpha[:, None]) @ torch.tensor(LUMA)
    shown = (batch.views * 0.25 + 0.5).mean(dim=(2, 3)) @ torch.tensor(LUMA)
    own = torch.corrcoef(torch.stack((luma, shown[:32])))[0, 1]
    others = torch.corrcoef(torch.stack((luma.roll(1), shown[:32])))[0, 1]
    assert own > others + 0.2


def test_a_step_is_a_pure_function_of_its_number(batches):
    again, other = batches.batch(5, 0, 1), batches.batch(6, 0, 1)
    assert torch.equal(batches.batch(5, 0, 1).views, again.views)
    assert not torch.equal(other.rows, again.rows)


def test_views_are_made_on_the_device_where_the_pictures_fit(batches, monkeypatch, capsys):
    """The meta device stands for one: it has no values, and refuses to bring them to the host."""
    device = torch.device("meta")
    (batch,) = batches.stream(3, 4, Rank(0, 2, device))
    assert batch.views.device == device and batch.views.shape == (32, 3, 16, 16)
    assert batches.on(device).pictures.device == device and not capsys.readouterr().out
    monkeypatch.setattr(batches_module, "ROOM", 0.0)
    assert batches.on(device) is batches
    assert "stay on the CPU, where their views are made: they need" in capsys.readouterr().out
    (batch,) = batches.stream(3, 4, Rank(0, 2, torch.device("cpu")))
    assert torch.equal(batch.views, batches.batch(3, 0, 2).views) and not capsys.readouterr().out


def test_opening_twice_gives_the_same_batches(home, batches):
    """Every rank opens its own: they share one order and one set of pictures."""
    second = opened(home)
    assert all(
        torch.equal(getattr(batches, name), getattr(second, name)) for name in ("rows", "pictures", "groups", "bank")
    )
    whole = batches.batch(1, 0, 1)
    shares = [batches.batch(1, 0, 2), second.batch(1, 1, 2)]
    assert torch.equal(torch.cat([share.rows for share in shares]), whole.rows)
    assert torch.equal(torch.cat([share.views[:16] for share in shares]), whole.views[:32])


def test_another_seed_gives_another_order(home, batches):
    assert not torch.equal(opened(home, seed=1).batch(0, 0, 1).rows, batches.batch(0, 0, 1).rows)


def test_a_batch_larger_than_the_data_is_an_error_that_names_a_size(home):
    trained = int((home.splits == "train").sum())
    config = TRAIN.model_copy(update={"batch_size": trained + 1})
    with pytest.raises(DataError, match=f"{trained} usable") as caught:
        opened(home, config)
    assert f"train.batch_size={trained // 2}" in caught.value.remedy
    exact = opened(home, config.model_copy(update={"batch_size": trained}))
    assert exact.steps_per_epoch == 1 and sorted(exact.batch(0, 0, 1).rows.tolist()) == exact.rows.tolist()


def test_a_smaller_batch_changes_no_view(home, batches):
    """What a picture looks like in an epoch depends on its row, not on the batch it is in."""
    small = dataclasses.replace(batches, config=TRAIN.model_copy(update={"batch_size": 8}))
    assert torch.equal(small.batch(3, 0, 1).rows, batches.batch(0, 0, 1).rows[24:])
    assert torch.equal(small.batch(3, 0, 1).views[:8], batches.batch(0, 0, 1).views[24:32])
