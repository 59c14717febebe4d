"""The training loop: one process or many, the same numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from xclr.errors import JobError, RecipeError
from xclr.recipe import TrainConfig
from xclr.training import checkpoint
from xclr.training.batches import Batch, Batches
from xclr.training.checkpoint import Checkpoint
from xclr.training.norm import convert_sync_batchnorm
from xclr.training.objectives import Outcome
from xclr.training.optim import build_optimizer, learning_rate
from xclr.training.ranks import Place
from xclr.training.stop import Stopped

Log = Callable[[int, Mapping[str, float]], None]


class Pretrainer(nn.Module):
    """A backbone under its objective, so that one forward pass goes through both."""

    def __init__(self, backbone: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.backbone, self.objective = backbone, objective

    def forward(self, views: Tensor, rows: Tensor) -> Outcome:
        """Loss of this rank's views [2b, 3, s, s]."""
        outcome: Outcome = self.objective(self.backbone(views), rows)
        return outcome


def train(  # noqa: PLR0913 - one call says all that a training depends on
    config: TrainConfig,
    data: Batches,
    objective: Pretrainer,
    *,
    out: Path,
    resume: Checkpoint | None,
    should_stop: Callable[[], bool],
    log: Log,
) -> Checkpoint:
    """Train for config.epochs and return the last checkpoint, written below `out`/checkpoints by rank 0.

    Every rank calls it with the same arguments. `should_stop` is asked at each step; when any rank says yes, all
    stop together after a checkpoint and Stopped is raised. `resume` continues with the loss sequence unchanged.
    """
    place = Place.here()
    if data.batch_size % place.world:
        raise RecipeError(
            f"train.batch_size {data.batch_size} cannot be shared by {place.world} ranks",
            "choose a multiple of the ranks",
        )
    model = convert_sync_batchnorm(objective)
    optimizer = build_optimizer(model, config)
    done = _restore(resume, model, optimizer)
    steps = config.epochs * data.steps_per_epoch
    trained = DistributedDataParallel(model, broadcast_buffers=False) if place.world > 1 else model
    model.train()
    meter = Meter(data.batch_size)
    saved = resume
    for step, batch in enumerate(data.stream(done, steps, place), start=done):
        logged = step + 1 == steps or (step + 1) % config.log_every == 0
        rate = learning_rate(step, steps, config)
        meter.add(_step(trained, optimizer, batch, rate), logged)
        stop = meter.share(should_stop())
        if logged:
            log(
                step + 1, meter.read() | {"train/learning_rate": rate, "train/epoch": (step + 1) / data.steps_per_epoch}
            )
        if stop or step + 1 == steps or (step + 1) % config.checkpoint_every == 0:
            saved = _save(out, step + 1, model, optimizer, place.rank)
        if stop and step + 1 < steps:
            raise Stopped(f"stopped after step {step + 1} of {steps}")
    if saved is None:
        raise RecipeError("there is nothing to train: no whole batch in the data", "lower train.batch_size")
    return saved


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, rate: float) -> Outcome:
    for group in optimizer.param_groups:
        group["lr"] = rate
    outcome: Outcome = model(batch.views, batch.rows)
    optimizer.zero_grad(set_to_none=True)
    outcome.loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return outcome


class Meter:
    """The latest loss and report, averaged over ranks in one small all-reduce a step."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.names: list[str] = []
        self.values = torch.zeros(0)
        self.steps, self.since = 0, time.perf_counter()

    def add(self, outcome: Outcome, logged: bool) -> None:
        """Take one step's outcome, with its report when the step is logged."""
        named = {"loss": outcome.loss.detach()} | (outcome.report() if logged else {})
        self.names = list(named)
        self.values = torch.stack([each.float() for each in named.values()])
        self.steps += 1

    def share(self, stop: bool) -> bool:
        """Average over ranks; True when any rank wants to stop; raises JobError when the loss is not finite."""
        if dist.is_initialized():
            both = torch.cat((self.values, torch.tensor([float(stop)])))
            dist.all_reduce(both)
            self.values, stop = both[:-1] / dist.get_world_size(), bool(both[-1] > 0)
        if not self.values[0].isfinite():
            raise JobError("the loss is not finite", "lower train.learning_rate or raise the temperature")
        return stop

    def read(self) -> dict[str, float]:
        """Metrics since the last reading."""
        now = time.perf_counter()
        rate = self.steps * self.batch_size / max(now - self.since, 1e-9)
        self.steps, self.since = 0, now
        named = zip(self.names, self.values.tolist(), strict=True)
        return {f"train/{name}": value for name, value in named} | {"train/images_per_s": rate}


def _restore(resume: Checkpoint | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if resume is None:
        return 0
    state = checkpoint.load(resume)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return resume.step


def _save(out: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, rank: int) -> Checkpoint:
    state: dict[str, Any] = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    directory = out / "checkpoints"
    if rank == 0:
        checkpoint.save(directory, step, state)
    return Checkpoint(directory / f"step-{step:09d}.pt", step)
