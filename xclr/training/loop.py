"""The training loop: one process or many, the same numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from xclr.errors import RecipeError, Stopped
from xclr.recipe import TrainConfig
from xclr.training import checkpoint
from xclr.training.average import Average, distance, see
from xclr.training.batches import Batch, Batches
from xclr.training.caching import average_gradients, cached_step
from xclr.training.checkpoint import Checkpoint
from xclr.training.compiling import compile_step
from xclr.training.guard import Guard
from xclr.training.meter import Meter
from xclr.training.norm import convert_sync_batchnorm
from xclr.training.objectives.materials import Averaged, Look, Looked, Objective, StepLoss
from xclr.training.optim import Descent, build_descents, learning_rate, schedule
from xclr.training.ranks import LATE, Boundary, Rank

Log = Callable[[int, Mapping[str, float]], None]


class Pretrainer(nn.Module):
    """A backbone under its objective, so that one forward pass goes through both, and the average of an objective."""

    def __init__(self, backbone: nn.Module, objective: Objective, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.backbone, self.objective, self.precision = backbone, objective, precision
        wanted = objective.averaging
        self.average = None if wanted is None else Average(backbone, wanted)

    @property
    def look(self) -> Look:
        """How the batches of a training look up what the objective reads of captions."""
        return self.objective.look

    def forward(self, views: Tensor, rows: Tensor, looked: Looked) -> StepLoss:
        """Loss of this rank's views [2b, 3, s, s]; products of the networks are in `precision`, the loss is not."""
        return self.compare(self.embed(views), self.embed_averaged(views), rows, looked)

    def embed(self, views: Tensor) -> tuple[Tensor, ...]:
        """The backbone's features [n, d] of views, and its maps where an average is compared by them."""
        with self._precise(views):
            return see(self.backbone, views, self.objective.averaging)

    def embed_averaged(self, views: Tensor) -> tuple[Tensor, ...]:
        """The same of the average; nothing where there is none."""
        with self._precise(views):
            return () if self.average is None else self.average(views)

    def compare(
        self, embedded: tuple[Tensor, ...], averaged: tuple[Tensor, ...], rows: Tensor, looked: Looked
    ) -> StepLoss:
        """The loss of what was embedded of [2b] views."""
        features, *maps = embedded
        with self._precise(features):
            if self.average is None:
                return self.objective(features, rows, looked)  # type: ignore[no-any-return]
            keys, *others = averaged
            seen = Averaged(self.average.project(keys), distance(maps, others) if maps else None)
            return self.objective(features, rows, looked, seen)  # type: ignore[no-any-return]

    def follow(self) -> None:
        """Let the average come nearer, after a step."""
        if self.average is not None:
            self.average.follow(self.backbone)

    def _precise(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, self.precision, enabled=self.precision != torch.float32)


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

    Every rank calls it with the same arguments. `should_stop` is asked after each step; when any rank says yes, all
    stop together at the next boundary, after a checkpoint, and Stopped is raised. `resume` continues with the loss
    sequence unchanged. Nothing is read from the device but what is logged or saved. Raises JobError when a rank is
    stuck, and before it logs or saves where a gradient was not finite or exploded; from that step on no weight changed.
    """
    place = Rank.here()
    _check(config, data.batch_size, place)
    learner = Learner.of(objective, config, place)
    done = learner.restore(resume)
    steps = config.epochs * data.steps_per_epoch
    if steps == 0:
        raise RecipeError("there is nothing to train: no whole batch in the data", "lower train.batch_size")
    boundary, meter = Boundary(place, config.stuck_after_s), Meter(data.batch_size, place, data.spent)
    saved = resume
    fetched, asked = time.perf_counter(), False
    for step, batch in enumerate(data.stream(done, steps, place, objective.look), start=done):
        meter.wait(time.perf_counter() - fetched)
        if boundary.agree(asked, step):
            if saved is None or saved.step < step:
                learner.save(out, step, meter, saved)
            raise Stopped(f"stopped after step {step} of {steps}")
        try:
            outcome, norm = learner.step(batch, schedule(step, steps, config), step)
        except RuntimeError as error:  # a rank stopped in the middle of a step, so that the others wait there
            if place.world > 1 and LATE in str(error):
                raise boundary.late(step + 2) from error
            raise
        meter.add(outcome.loss.detach())
        last = step + 1 == steps
        if last or (step + 1) % config.log_every == 0:
            learner.guard.check(saved)
            report = {"loss": outcome.loss.detach(), "gradient_norm": norm} | outcome.report()
            at = {
                "train/learning_rate": learning_rate(step, steps, config),
                "train/epoch": (step + 1) / data.steps_per_epoch,
            }
            log(step + 1, with_unlearned(meter.read(report), float(outcome.chance())) | at)
        asked |= should_stop()
        if last or (step + 1) % config.checkpoint_every == 0:
            saved = learner.save(out, step + 1, meter, saved)
        fetched = time.perf_counter()
    assert saved is not None  # the last step saves
    return saved


@dataclass
class Learner:
    """What a step changes, and the config that says how."""

    config: TrainConfig
    place: Rank
    model: Pretrainer  # as it is saved
    trained: nn.Module  # the same, under DDP where there are ranks
    descents: tuple[Descent, ...]
    scaler: torch.amp.GradScaler
    guard: Guard

    @classmethod
    def of(cls, objective: Pretrainer, config: TrainConfig, place: Rank) -> Learner:
        """Move the model to the rank's device, its batch norms over all ranks, and give it an optimiser."""
        model = objective.to(place.device).train()
        convert_sync_batchnorm(model)
        compile_step(model, model.backbone, config, place.device)
        trained: nn.Module = model
        if place.world > 1 and config.micro_batch is None:
            own = [place.device] if place.device.type == "cuda" else None
            trained = DistributedDataParallel(model, device_ids=own, forward_sync_buffers=False)
        scaler = torch.amp.GradScaler(place.device.type, enabled=config.precision == "float16")
        guard = Guard(place.device, scaled=scaler.is_enabled())
        return cls(config, place, model, trained, build_descents(model, config), scaler, guard)

    def step(self, batch: Batch, share: float, step: int) -> tuple[StepLoss, Tensor]:
        """One step at a share of the highest rates; the outcome, and the norm of the gradient over all ranks.

        What the guard refuses changes no weight and no momentum; an average comes nearer to the weights all the same.
        """
        for optimizer, peak in self.descents:
            for group in optimizer.param_groups:
                group["lr"] = share * peak
            optimizer.zero_grad(set_to_none=True)
        outcome = self._slopes(batch)
        for optimizer, _ in self.descents:
            self.scaler.unscale_(optimizer)
        gradients = [each.grad for each in self.model.parameters() if each.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        refused = self.guard.refuse(norm, self._loss_of_all(outcome.loss.detach()), step)
        for optimizer, _ in self.descents:
            optimizer.found_inf = refused  # type: ignore[attr-defined]  # as GradScaler tells fused optimisers
            optimizer.step()
        self.scaler.update()
        self.model.follow()
        return outcome, norm

    def _slopes(self, batch: Batch) -> StepLoss:
        """The outcome of a batch, whose gradient every parameter has afterwards, averaged over ranks."""
        if self.config.micro_batch is not None:
            cached = cached_step(self.model, batch, 2 * self.config.micro_batch, self.scaler.scale)
            average_gradients(self.model, self.place)
            return cached
        outcome: StepLoss = self.trained(batch.views, batch.rows, batch.looked)
        self.scaler.scale(outcome.loss).backward()  # type: ignore[no-untyped-call]
        return outcome

    def _loss_of_all(self, loss: Tensor) -> Tensor:
        """The same number on all ranks, where it decides whether a scale was too large; else this rank's."""
        if self.place.world > 1 and self.scaler.is_enabled():
            loss = loss.clone()
            dist.all_reduce(loss)
        return loss

    def restore(self, resume: Checkpoint | None) -> int:
        """Take over a checkpoint's state; the step it stands at."""
        if resume is None:
            return 0
        state = checkpoint.load(resume)
        self.model.load_state_dict(state["model"])
        saved_states = state["optimizers"] if "optimizers" in state else [state["optimizer"]]  # an earlier version's
        for descent, saved in zip(self.descents, saved_states, strict=True):
            descent.optimizer.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if self.place.device.type == "cuda" and "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"], self.place.device)
        return resume.step

    def save(self, out: Path, step: int, meter: Meter, before: Checkpoint | None) -> Checkpoint:
        """Rank 0 writes a checkpoint, the next after `before`; all ranks call it. Raises JobError as the guard does."""
        self.guard.check(before)
        loss, directory = meter.mean_loss(), out / "checkpoints"
        if self.place.rank == 0:
            checkpoint.save(directory, step, self._state(), loss=loss, keep=self.config.keep_checkpoints)
        return checkpoint.at(directory, step)

    def _state(self) -> dict[str, Any]:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [descent.optimizer.state_dict() for descent in self.descents],
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
        }
        if self.place.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.place.device)
        return state


def with_unlearned(metrics: Mapping[str, float], chance: float) -> dict[str, float]:
    """The metrics and train/unlearned: 1 where the loss is that of constant features, 0 where it meets its targets.

    (loss - H) / (chance - H), H the entropy of the targets; left out where the targets are those of chance.
    """
    entropy = metrics.get("train/target_entropy", 0.0)
    room = chance - entropy
    unlearned = {"train/unlearned": (metrics["train/loss"] - entropy) / room} if room > 1e-6 else {}
    return dict(metrics) | unlearned


def precision_of(config: TrainConfig) -> torch.dtype:
    """Of the networks' products."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[config.precision]


def _check(config: TrainConfig, batch_size: int, place: Rank) -> None:
    """Raise RecipeError for what these ranks cannot do."""
    if batch_size % place.world:
        raise RecipeError(
            f"train.batch_size {batch_size} cannot be shared by {place.world} ranks", "choose a multiple of the ranks"
        )
    on_cuda = place.device.type == "cuda"
    if config.precision == "bfloat16" and on_cuda and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(place.device)
        raise RecipeError(f"{name} does not compute in bfloat16", "--set train.precision=float16, or float32")
