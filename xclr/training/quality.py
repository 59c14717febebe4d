"""How good a backbone is while it trains: from its features of a fixed sample, without any fitting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xclr.files import NOT_TRAINED, TRAIN
from xclr.graph.similarity import judged_of_row
from xclr.images import read_pictures, usable_rows
from xclr.recipe import TrainConfig
from xclr.training.views import PLAIN, still

BANK, SLICE = 768, 256  # pictures of the training and held-out pictures, at most
K, TEMPERATURE = 20, 0.07  # of the vote: exp(cosine / 0.07), as the suite knn
PART = 128  # pictures at a time
DEAD = 1e-4  # of the mean deviation of all dimensions

Quality = Callable[[nn.Module, torch.device], dict[str, float]]


class Sample(NamedTuple):
    """Pictures that are looked at again and again, their classes, -1 for none, and which are not trained on."""

    pictures: Tensor  # uint8 [m, 4, s, s]
    classes: Tensor  # int64 [m]
    held_out: Tensor  # bool [m]


def open_sample(captions: Path, images: Path, config: TrainConfig) -> Sample:
    """Decode evenly spaced pictures of the training and of the first held-out split."""
    split = np.array(pq.read_table(captions / "captions.parquet", columns=["split"])["split"].to_pylist())
    usable = usable_rows(images)
    there = split[usable]
    held = next((name for name in NOT_TRAINED if (there == name).any()), None)
    train = _spaced(usable[there == TRAIN], BANK)
    rows = np.concatenate([train, _spaced(usable[there == held], SLICE) if held else train[:0]])
    lost: set[int] = set()
    pictures = read_pictures(images, rows, config.image_size, lost)
    kept = torch.from_numpy(~np.isin(rows, list(lost)))
    held_out = torch.arange(len(rows)) >= len(train)
    return Sample(pictures[kept], judged_of_row(captions)[torch.from_numpy(rows)][kept], held_out[kept])


def _spaced(rows: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(np.int64))]


def quality_of(sample: Sample, config: TrainConfig, precision: torch.dtype) -> Quality:
    """What judges a backbone by its features of the sample; it leaves no trace in the backbone."""

    @torch.no_grad()
    def judge(backbone: nn.Module, device: torch.device) -> dict[str, float]:
        training = backbone.training
        backbone.eval()
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            parts = (still(each.to(device), PLAIN, config) for each in torch.split(sample.pictures, PART))
            features = torch.cat([backbone(each).float().cpu() for each in parts])
        backbone.train(training)
        found = {"rankme": rankme(features), "dead_dimensions": dead_share(features)}
        bank, held = ~sample.held_out & (sample.classes >= 0), sample.held_out & (sample.classes >= 0)
        if bank.any() and held.any():
            guesses = vote(features[held], features[bank], sample.classes[bank])
            found["knn_top1"] = float((guesses == sample.classes[held]).double().mean())
        return {f"train/{name}": value for name, value in found.items()}

    return judge


def rankme(features: Tensor) -> float:
    """The effective rank of features [m, d]: exp of the entropy of their singular values' shares, 1 to min(m, d).

    Source: RankMe, arXiv 2210.02885.
    """
    lengths = torch.linalg.svdvals(features.double())
    shares = lengths / lengths.sum().clamp_min(1e-12) + 1e-7
    return float(torch.exp(-(shares * shares.log()).sum()))


def dead_share(features: Tensor) -> float:
    """Share of the dimensions of features [m, d] that hardly differ between pictures."""
    deviation = features.double().std(0)
    return float((deviation <= DEAD * deviation.mean()).double().mean())


def vote(queries: Tensor, keys: Tensor, classes: Tensor) -> Tensor:
    """The class of each query [n, d] by the votes of its K nearest keys [m, d], whose classes are [m]."""
    known, place = torch.unique(classes, return_inverse=True)
    near = (F.normalize(queries) @ F.normalize(keys).T).topk(min(K, len(keys)))
    votes = torch.zeros(len(queries), len(known), dtype=torch.float64)
    votes.scatter_add_(1, place[near.indices], (near.values.double() / TEMPERATURE).exp())
    best: Tensor = known[votes.argmax(1)]
    return best
