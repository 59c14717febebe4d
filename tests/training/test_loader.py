"""Streamed batches: the same pictures for any number of ranks and workers, from any step on."""

import io
import os
import signal
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from tests.kit.home import RECIPE, TRAIN, build, training_data
from tests.kit.pictures import encode, photo, spoil, turned
from tests.kit.stages import no_progress
from xclr.errors import DataError
from xclr.images import EncodedPictures, PictureFiles, UnreadableError
from xclr.recipe import SimCLRConfig
from xclr.training import PictureBatches, Rank, StreamedBatches, loader, open_batches, train
from xclr.training.keyed import epoch_order, windowed_order
from xclr.training.meter import RANK, WORKERS, narrow_place
from xclr.training.model import memory_format
from xclr.training.pretrain import fit
from xclr.training.stages import PRETRAIN, pretrain, with_decoder

CONFIG = TRAIN.model_copy(update={"views": "simclr", "workers": 0, "image_size": 24})


def opened(home, **changes):
    return open_batches(home.paths["captions"], home.paths["images"], CONFIG.model_copy(update=changes), 0)


def place(rank=0, world=1):
    return Rank(rank, world, torch.device("cpu"))


def steps(batches, start=0, stop=3, at=None):
    return list(batches.stream(start, stop, at or place()))


@pytest.mark.parametrize("views", ["simclr", "autoaugment"])
def test_worker_counts_change_no_picture(home, views):
    expected = steps(opened(home, views=views))
    for workers in (1, 3):
        for ours, theirs in zip(steps(opened(home, views=views, workers=workers)), expected, strict=True):
            assert torch.equal(ours.rows, theirs.rows) and torch.equal(ours.views, theirs.views)


@pytest.mark.parametrize("views", ["simclr", "autoaugment"])
def test_the_ranks_shares_are_the_batch_of_one_rank(home, views):
    batches = opened(home, views=views)
    whole = steps(batches)
    parts = [steps(batches, at=place(rank, 2)) for rank in range(2)]
    for one, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat((first.rows, second.rows)), one.rows)
        by_view = [torch.cat(halves) for halves in zip(first.views.chunk(2), second.views.chunk(2), strict=True)]
        torch.testing.assert_close(torch.cat(by_view), one.views, rtol=0, atol=1e-5)


def test_a_stream_can_begin_at_any_step_and_draws_nothing_from_the_networks_generator(home):
    batches = opened(home)
    end, state = batches.steps_per_epoch, torch.get_rng_state()
    late = steps(batches, end - 1, end + 2)
    assert torch.equal(torch.get_rng_state(), state)
    for ours, theirs in zip(late, steps(batches, 0, end + 2)[end - 1 :], strict=True):
        assert torch.equal(ours.rows, theirs.rows) and torch.equal(ours.views, theirs.views)


def test_two_views_of_a_picture_differ_and_so_do_two_epochs(home):
    batches = opened(home)
    first, second = steps(batches, 0, 1)[0].views.chunk(2)
    assert (first - second).abs().mean() > 0.1
    rows = [
        torch.cat([each.rows for each in steps(batches, at_, at_ + batches.steps_per_epoch)])
        for at_ in (0, batches.steps_per_epoch)
    ]
    assert not torch.equal(*rows) and len(set(rows[0].tolist())) == len(rows[0])


def test_views_have_the_size_range_and_layout_of_the_network(home):
    (batch,) = steps(opened(home), 0, 1)
    assert batch.views.shape == (2 * CONFIG.batch_size, 3, 24, 24) and batch.views.dtype == torch.float32
    assert batch.views.is_contiguous(memory_format=memory_format(CONFIG))
    assert -2.01 < batch.views.min() < batch.views.max() < 2.01


def test_stickers_stay_in_memory_and_photographs_do_not(home):
    assert isinstance(opened(home, views="stickers"), PictureBatches)
    assert isinstance(opened(home), StreamedBatches)


def test_pictures_that_do_not_fit_into_memory_are_refused_before_they_are_decoded(home):
    with pytest.raises(DataError, match=r"decoded pictures need [\d.]+ GB") as caught:
        opened(home, views="stickers", image_size=400_000)
    assert "train.views=simclr" in caught.value.remedy


def test_workers_ignore_the_signals_that_stop_their_rank(home):
    before = set(psutil.Process().children())
    stream = opened(home, workers=2).stream(0, 8, place())
    for _ in range(2):  # one of each worker, so that both have begun
        next(stream)
    children = [each.pid for each in psutil.Process().children() if each not in before]
    assert len(children) >= 2
    for child in children:
        os.kill(child, signal.SIGTERM)
        os.kill(child, signal.SIGUSR2)
    assert sum(1 for _ in stream) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_read_is_named_with_its_remedy(home, tmp_path, workers):
    images = home.paths["images"]
    for path in images.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "shard-00000.tar").unlink()
    (tmp_path / "shard-00000.tar").write_bytes((images / "shard-00000.tar").read_bytes()[:50_000])
    batches = StreamedBatches.open(home.paths["captions"], tmp_path, CONFIG.model_copy(update={"workers": workers}), 0)
    with pytest.raises(DataError, match=r"row \d+ cannot be read from .* \(shard 0, offset \d+\)") as caught:
        steps(batches, 0, batches.steps_per_epoch)
    assert "run the recipe again" in caught.value.remedy


@pytest.mark.parametrize("views", ["simclr", "stickers"])
@pytest.mark.slow
def test_in_the_place_of_a_picture_that_is_none_stands_the_next_that_is_one(home, tmp_path, capsys, views):
    """Whatever the ranks and workers are; it comes with its own row, and what is lost is counted and named."""
    first = opened(home, views=views).rows.tolist()
    bad = [first[3], first[4], first[-1]]
    stands_for = {first[3]: first[5], first[4]: first[5], first[-1]: first[0]}
    images = spoil(home.paths["images"], bad, tmp_path)
    found = []
    for workers, ranks in ((0, 1), (2, 1), (0, 2)):
        config = CONFIG.model_copy(update={"views": views, "workers": workers})
        rows, lost = [], set()
        for rank in range(ranks):
            batches = open_batches(home.paths["captions"], images, config, 0)
            rows += [each.rows for each in steps(batches, 0, batches.steps_per_epoch, place(rank, ranks))]
            lost |= batches.lost
        assert lost <= set(bad) if views == "simclr" else lost == set(bad), "the last batch of an epoch is not whole"
        found.append(sorted(torch.cat(rows).tolist()))
    whole = opened(home, views=views)
    expected = torch.cat([each.rows for each in steps(whole, 0, whole.steps_per_epoch)]).tolist()
    assert set(expected) & set(bad)
    assert found == [sorted(stands_for.get(row, row) for row in expected)] * 3


class Made(EncodedPictures):
    """Photographs of many sizes, and among them what nvJPEG is not given and what is damaged."""

    def __init__(self):
        self.encoded_ = [photo(30 + index % 17, 45 - index % 13, index) for index in range(2 * CONFIG.batch_size)]
        pictures = [Image.open(io.BytesIO(each)) for each in self.encoded_]
        self.encoded_[1] = encode(pictures[1])
        self.encoded_[2] = encode(pictures[2].convert("CMYK"), "JPEG")
        self.encoded_[3], self.encoded_[4] = turned(), encode(pictures[4], "JPEG", keep_rgb=True)
        self.encoded_[5] = self.encoded_[5][: len(self.encoded_[5]) // 2]  # its header is sound
        self.encoded_[9], self.encoded_[10] = bytes(9), self.encoded_[10][:-200]
        self.rows = np.arange(len(self.encoded_)) * 3
        self.shards = np.zeros_like(self.rows)

    def encoded(self, position):
        return self.encoded_[position]

    def unreadable(self, position, error, *, there):
        return UnreadableError(repr(error))


def test_views_that_a_device_decodes_and_cuts_are_the_workers_to_a_rounding(monkeypatch, capsys):
    """On the CPU, which stands for a GPU with nvJPEG here; without one the workers do it, and a line says so."""
    config, pictures = CONFIG.model_copy(update={"decode": "gpu"}), Made()

    def streamed(config, workers=0, ranks=1):
        config, lost = config.model_copy(update={"workers": workers}), set()
        batches = StreamedBatches(pictures, config, 0, colours=False, lost=lost)
        shares = zip(*(steps(batches, 0, 2, place(rank, ranks)) for rank in range(ranks)), strict=True)
        made = [batch for step in shares for batch in step]
        views = [torch.stack(batch.views.chunk(2), dim=1) for batch in made]
        return torch.cat([batch.rows for batch in made]), torch.cat(views), lost

    rows, views, lost = streamed(CONFIG)
    assert len(rows) == len(pictures.rows) and lost == {15, 27, 30}
    assert torch.equal(streamed(config)[1], views)
    assert "train.decode is gpu, and there is no GPU: the CPU decodes instead" in capsys.readouterr().out
    monkeypatch.setattr(loader, "lacking", lambda device: None)
    found = [streamed(config, workers, ranks) for workers, ranks in ((0, 1), (2, 1), (0, 2))]
    assert 0 < (found[0][1] - views).abs().max() <= 1.01 / 255 / 0.25
    for ours in found:
        assert torch.equal(ours[0], rows) and torch.equal(ours[1], found[0][1]) and ours[2] == lost


def test_the_decoder_is_chosen_when_a_run_is_planned(home):
    """And is part of what a training is; this machine may have a GPU or none."""
    stages = {}
    for decode in ("cpu", "gpu", "auto"):
        recipe = RECIPE.model_copy(update={"train": CONFIG.model_copy(update={"decode": decode})})
        stages[decode] = pretrain(recipe, SimCLRConfig(), 0, training_data(home.artifacts))
    chosen = "gpu" if torch.cuda.is_available() else "cpu"
    assert stages["auto"].config.train.decode == chosen and stages["auto"].digest == stages[chosen].digest
    assert stages["cpu"].digest != stages["gpu"].digest
    assert with_decoder(TRAIN.model_copy(update={"decode": "auto"})).decode == "cpu", "stickers are decoded once"


def test_pictures_that_stand_in_train_and_are_told(home, tmp_path, capsys):
    rows = opened(home).rows.tolist()
    (tmp_path / "images").mkdir()
    images = spoil(home.paths["images"], rows[:2], tmp_path / "images")
    config = CONFIG.model_copy(update={"epochs": 2})
    batches = open_batches(home.paths["captions"], images, config, 0)
    stats = fit(config, batches, build(SimCLRConfig(), home.paths, config), tmp_path, no_progress)
    assert all(0 < stats[f"train/{name}"] < 1 for name in (*WORKERS, *RANK)), "whatever takes time is told"
    assert f" pictures/s  {narrow_place(stats)} is the narrow place" in capsys.readouterr().out
    assert (stats["unreadable"], stats["unreadable_rows"]) == (2, f"{rows[0]}, {rows[1]}")
    (line,) = PRETRAIN.tell(SimpleNamespace(stats=stats))
    assert line == f"2 pictures could not be read, others stood in: rows {rows[0]}, {rows[1]}"


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((0.1, 0.6, 0.2, 0.1, 0.5), "decode"),
        ((0.1, 0.3, 0.2, 0.1, 0.9), "compute"),
        ((0.7, 0.1, 0.1, 0.3, 0.1), "read"),
        ((0.1, 0.1, 0.1, 0.6, 0.4), "copy"),
    ],
)
def test_the_narrow_place_is_what_takes_the_busier_longest(shares, expected):
    metrics = {f"train/{name}": share for name, share in zip((*WORKERS, *RANK), shares, strict=True)}
    assert narrow_place(metrics) == expected
    assert narrow_place({"train/compute": 1.0}) is None, "nobody but the rank works for it"


def test_a_data_set_without_pictures_is_no_bad_picture(home, tmp_path):
    images = spoil(home.paths["images"], opened(home).rows.tolist(), tmp_path)
    batches = open_batches(home.paths["captions"], images, CONFIG, 0)
    with pytest.raises(DataError, match=r"the picture of row \d+ in .* cannot be read") as caught:
        steps(batches, 0, 1)
    assert "judges each picture anew" in caught.value.remedy


@pytest.mark.slow
def test_streamed_pictures_train(home, tmp_path):
    config, losses = CONFIG.model_copy(update={"workers": 1, "epochs": 3}), []
    batches = open_batches(home.paths["captions"], home.paths["images"], config, 0)
    model = build(SimCLRConfig(), home.paths, config)
    train(
        config, batches, model, out=tmp_path, resume=None, should_stop=lambda: False,
        log=lambda step, metrics: losses.append(metrics["train/loss"]),
    )  # fmt: skip
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.1


def test_a_large_jpeg_is_decoded_smaller(home, tmp_path):
    Image.new("RGB", (1200, 800), (200, 30, 30)).save(tmp_path / "shard-00000.tar", format="JPEG")
    size = (tmp_path / "shard-00000.tar").stat().st_size
    one = np.zeros(1, np.int64)
    files = PictureFiles(tmp_path, one, one, one, np.array([size]))
    assert [files.picture(0, 0.5).decode(times).shape[:2] for times in (1.0, 2.0, 4.5)] == [
        (800, 1200),
        (400, 600),
        (200, 300),
    ]
    assert files.picture(0, 0.5).size == (1200, 800)


@pytest.mark.parametrize("window", [1, 3, 100])
def test_a_windowed_order_has_every_sample_once_and_reads_few_shards_at_a_time(window):
    shards = np.repeat(np.arange(10), 50)
    order = windowed_order(0, 4, shards, window)
    assert sorted(order) == list(range(500))
    for start in range(0, 500, 50 * window):
        assert len(set(shards[order[start : start + 50 * window]])) <= window
    assert np.array_equal(order, windowed_order(0, 4, shards, window))
    assert not np.array_equal(order, windowed_order(0, 5, shards, window))
    assert not np.array_equal(order, windowed_order(1, 4, shards, window))


def test_the_order_of_a_window_of_all_shards_is_as_random_as_that_without(home):
    shards = np.repeat(np.arange(10), 50)
    for order in (windowed_order(0, 0, shards, 10), epoch_order(0, 0, 500).numpy()):
        assert abs(np.corrcoef(order, np.arange(500))[0, 1]) < 0.15
