"""What is seen of a backbone while it trains, against references, and that nobody notices that it was looked at."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from tests.kit.home import TRAIN, build
from tests.kit.stages import no_progress
from xclr.recipe import SimCLRConfig
from xclr.training import quality as module
from xclr.training.checkpoint import latest, load
from xclr.training.loader import open_batches
from xclr.training.pretrain import fit
from xclr.training.quality import dead_share, open_sample, quality_of, rankme, vote
from xclr.training.spool import SPOOL, read_spool

SEEN = ("train/rankme", "train/dead_dimensions", "train/knn_top1")


def test_the_effective_rank_is_that_of_equal_lengths_and_of_the_formula():
    """k equal singular values have rank k; in general exp of the entropy of their shares."""
    for k in (1, 3, 8):
        features = torch.zeros(20, 8)
        features[torch.arange(k), torch.arange(k)] = 5.0
        assert rankme(features) == pytest.approx(k, rel=1e-4)
    features = np.random.default_rng(0).normal(size=(50, 12)) * np.linspace(0.1, 3, 12)
    shares = np.linalg.svd(features, compute_uv=False)
    shares /= shares.sum()
    assert rankme(torch.from_numpy(features)) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)
    assert rankme(torch.zeros(5, 3)) == pytest.approx(1, abs=0.01)


def test_dimensions_that_do_not_differ_are_dead():
    features = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    assert dead_share(features) == 0
    features[:, :2], features[:, 2] = 7.0, 1e-7 * features[:, 2]
    assert dead_share(features) == 3 / 8


def test_a_vote_is_that_of_the_nearest_by_cosine():
    rng = np.random.default_rng(1)
    classes = rng.integers(4, size=300) * 10
    keys = rng.normal(size=(300, 6)) + 2 * np.eye(6)[classes // 10]
    queries = rng.normal(size=(80, 6)) + 2 * np.eye(6)[rng.integers(4, size=80)]
    peer = KNeighborsClassifier(20, metric="cosine", weights=lambda far: np.exp((1 - far) / 0.07)).fit(keys, classes)
    found = vote(*map(torch.from_numpy, (queries, keys, classes)))
    assert (found.numpy() == peer.predict(queries)).mean() > 0.98


def test_the_sample_is_of_training_and_held_out_pictures_with_the_judged_classes(home):
    sample = open_sample(home.paths["captions"], home.paths["images"], TRAIN)
    splits = home.splits
    train, held = int((splits == "train").sum()), int((splits == "pictures").sum())
    assert (~sample.held_out).sum() == min(train, module.BANK) and sample.held_out.sum() == min(held, module.SLICE)
    assert sample.pictures.shape[1:] == (4, TRAIN.image_size, TRAIN.image_size) and (sample.classes >= 0).all()
    again = open_sample(home.paths["captions"], home.paths["images"], TRAIN)
    assert all(torch.equal(*both) for both in zip(sample, again, strict=True))


def test_features_that_tell_classes_score_one_and_constant_ones_are_seen_to_be(home):
    sample = open_sample(home.paths["captions"], home.paths["images"], TRAIN)
    judge = quality_of(sample, TRAIN, torch.float32)
    pixels = judge(nn.Flatten(), torch.device("cpu"))
    assert set(pixels) == set(SEEN) and 0 < pixels["train/knn_top1"] < 1 and pixels["train/rankme"] > 10

    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), 4)

    assert judge(Constant(), torch.device("cpu"))["train/dead_dimensions"] == 1
    unlabelled = quality_of(sample._replace(classes=torch.full_like(sample.classes, -1)), TRAIN, torch.float32)
    assert set(unlabelled(nn.Flatten(), torch.device("cpu"))) == set(SEEN[:2])


@pytest.mark.slow
def test_a_training_that_is_looked_at_is_the_one_that_is_not(home, tmp_path):
    """The same weights to the last bit; what was seen is in the spool at the steps where it fell due."""
    config = TRAIN.model_copy(update={"epochs": 2, "log_every": 3, "watch_every": 5})
    states, seen = [], []
    for looked in (True, False):
        torch.manual_seed(0)
        out = tmp_path / str(looked)
        sample = open_sample(home.paths["captions"], home.paths["images"], config)
        quality = quality_of(sample, config, torch.float32) if looked else None
        batches = open_batches(home.paths["captions"], home.paths["images"], config, 0)
        stats = fit(config, batches, build(SimCLRConfig(), home.paths, config), out, no_progress, quality)
        states.append(load(latest(out / "checkpoints"))["model"])
        seen.append([each.step for each in read_spool(out / SPOOL) if SEEN[0] in each.metrics])
        assert not set(SEEN) & set(stats)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    steps = 2 * batches.steps_per_epoch
    assert seen == [[step for step in range(3, steps + 1, 3) if step // 5 > (step - 3) // 5], []]
