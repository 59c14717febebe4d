"""Whole steps: forward, backward, optimiser, and their views; X-CLR against SimCLR, SimCLR against lightly's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import nn
from torchvision.transforms import v2

from tests.bench.measure import Figure, compare
from tests.kit.home import make_home
from xclr.recipe import ObjectiveConfig, SimCLRConfig, TargetGraph, TrainConfig, XCLRConfig
from xclr.training import Batch, Learner, Materials, PictureBatches, Pretrainer, Rank, build_backbone, build_objective
from xclr.training.model import memory_format

STEPS = 4  # in a row, so that what the other one left in memory matters less
CONFIG = TrainConfig(batch_size=256, epochs=1)


def stepper(objective: ObjectiveConfig, paths: dict[str, Path], batch: Callable[[], Batch]) -> Callable[[], object]:
    torch.manual_seed(0)
    backbone, features = build_backbone(CONFIG)
    made = build_objective(objective, Materials(paths, features, CONFIG))
    assert made is not None
    learner = Learner.of(Pretrainer(backbone, made), CONFIG, Rank.here())

    def steps() -> None:
        for _ in range(STEPS):
            shown = batch()
            learner.step(shown._replace(looked=made.look(shown.rows)), 1e-4, 0)

    return steps


class Lightly(nn.Module):
    """lightly's SimCLR as its documentation builds it, on our backbone and with our projector's sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, features = build_backbone(CONFIG)
        self.head = SimCLRProjectionHead(features, CONFIG.projector_hidden, CONFIG.projector_out)
        self.criterion = NTXentLoss(temperature=0.1)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.criterion(self.head(self.backbone(first)), self.head(self.backbone(second)))
        return loss


def lightly_stepper(batch: Callable[[], Batch]) -> Callable[[], object]:
    """Its loop: two forward passes, the loss, backward, the same optimiser, on the same views."""
    torch.manual_seed(0)
    model = Lightly().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4, fused=True)

    def steps() -> None:
        for _ in range(STEPS):
            first, second = batch().views.chunk(2)
            optimizer.zero_grad()
            model(first, second).backward()
            optimizer.step()

    return steps


def torchvision_views(pictures: torch.Tensor) -> Callable[[], torch.Tensor]:
    """SimCLR's transform of each picture, twice, as lightly's loader applies it."""
    size = CONFIG.image_size
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(CONFIG.min_crop, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    return lambda: torch.stack([transform(each) for _ in range(2) for each in pictures])


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        home = make_home(Path(folder))
        config = CONFIG.model_copy(update={"batch_size": 128})
        data = PictureBatches.open(home.paths["captions"], home.paths["images"], config, 0)
        fixed = joined(data, 0)
        simclr = stepper(SimCLRConfig(), home.paths, lambda: fixed)
        xclr = stepper(XCLRConfig(graph=TargetGraph()), home.paths, lambda: fixed)
        yield compare("X-CLR step / SimCLR step, 512 views", xclr, simclr, 1.03, rounds=9)
        yield compare(
            "SimCLR step / lightly's step, same model and views", simclr, lightly_stepper(lambda: fixed), 1.0, rounds=9
        )
        transformed = torchvision_views(torch.cat([data.pictures[:128, :3]] * 2).contiguous())
        yield compare(
            "SimCLR loop, views and step / lightly's with torchvision's views",
            stepper(SimCLRConfig(), home.paths, lambda: joined(data, 0)),
            lightly_stepper(lambda: Batch(fixed.rows, transformed().contiguous(memory_format=memory_format(CONFIG)))),
            1.0,
            rounds=3,
        )
        yield compare(
            "two views of 256 pictures / torchvision's, as lightly has them", lambda: joined(data, 0), transformed, 1.0
        )


def joined(data: PictureBatches, step: int) -> Batch:
    """A batch of 256 from the small home's batches of 128."""
    halves = [data.batch(step + each, 0, 1) for each in range(2)]
    views = [torch.cat([half.views.chunk(2)[view] for half in halves]) for view in range(2)]
    rows = torch.cat([half.rows for half in halves])
    return Batch(rows, torch.cat(views).contiguous(memory_format=memory_format(CONFIG)))
