"""The training loop: one process or many, the same numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from xclr.errors import JobError, RecipeError, Stopped
from xclr.recipe import TrainConfig
from xclr.training import checkpoint
from xclr.training.batches import Batch, Batches
from xclr.training.checkpoint import Checkpoint
from xclr.training.meter import Meter
from xclr.training.norm import convert_sync_batchnorm
from xclr.training.objectives.materials import Look, Looked, StepLoss
from xclr.training.optim import Descent, build_descents, learning_rate, schedule
from xclr.training.ranks import LATE, Boundary, Rank

Log = Callable[[int, Mapping[str, float]], None]
EXPLODED, SETTLED = 1e4, 20  # gradient norm over its running mean; steps after which that mean means something


class Pretrainer(nn.Module):
    """A backbone under its objective, so that one forward pass goes through both."""

    def __init__(self, backbone: nn.Module, objective: nn.Module, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.backbone, self.objective, self.precision = backbone, objective, precision

    @property
    def look(self) -> Look:
        """How the batches of a training look up what the objective reads of captions."""
        return self.objective.look  # type: ignore[return-value]

    def forward(self, views: Tensor, rows: Tensor, looked: Looked) -> StepLoss:
        """Loss of this rank's views [2b, 3, s, s]; products of the networks are in `precision`, the loss is not."""
        with torch.autocast(views.device.type, self.precision, enabled=self.precision != torch.float32):
            outcome: StepLoss = self.objective(self.backbone(views), rows, looked)
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

    Every rank calls it with the same arguments. `should_stop` is asked after each step; when any rank says yes, all
    stop together after a checkpoint and Stopped is raised. `resume` continues with the loss sequence unchanged.
    Raises JobError when the gradient is not finite or explodes, before any weight changes, and when a rank is stuck.
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
                learner.save(out, step, meter)
            raise Stopped(f"stopped after step {step} of {steps}")
        try:
            outcome, norm = learner.step(batch, schedule(step, steps, config), step, saved)
        except RuntimeError as error:  # a rank stopped in the middle of a step, so that the others wait there
            if place.world > 1 and LATE in str(error):
                raise boundary.late(step + 2) from error
            raise
        meter.add(outcome.loss.detach())
        last = step + 1 == steps
        if last or (step + 1) % config.log_every == 0:
            report = {"loss": outcome.loss.detach(), "gradient_norm": norm} | outcome.report()
            at = {
                "train/learning_rate": learning_rate(step, steps, config),
                "train/epoch": (step + 1) / data.steps_per_epoch,
            }
            log(step + 1, with_unlearned(meter.read(report), outcome.chance) | at)
        asked = should_stop()
        if last or (step + 1) % config.checkpoint_every == 0:
            saved = learner.save(out, step + 1, meter)
        fetched = time.perf_counter()
    assert saved is not None  # the last step saves
    return saved


@dataclass
class Learner:
    """What a step changes, and the config that says how."""

    config: TrainConfig
    place: Rank
    model: nn.Module  # as it is saved
    trained: nn.Module  # the same, under DDP where there are ranks
    descents: tuple[Descent, ...]
    scaler: torch.amp.GradScaler
    usual_norm: float = math.nan  # running mean of the gradient's norm
    seen: int = 0

    @classmethod
    def of(cls, objective: Pretrainer, config: TrainConfig, place: Rank) -> Learner:
        """Move the model to the rank's device, its batch norms over all ranks, and give it an optimiser."""
        model = convert_sync_batchnorm(objective.to(place.device)).train()
        if config.compile:
            objective.backbone.compile()
        trained = model
        if place.world > 1:
            own = [place.device] if place.device.type == "cuda" else None
            trained = DistributedDataParallel(model, device_ids=own, forward_sync_buffers=False)
        scaler = torch.amp.GradScaler(place.device.type, enabled=config.precision == "float16")
        return cls(config, place, model, trained, build_descents(model, config), scaler)

    def step(self, batch: Batch, share: float, step: int, saved: Checkpoint | None) -> tuple[StepLoss, Tensor]:
        """One step at a share of the highest rates; the outcome, and the norm of the gradient over all ranks."""
        for optimizer, peak in self.descents:
            for group in optimizer.param_groups:
                group["lr"] = share * peak
        outcome: StepLoss = self.trained(batch.views, batch.rows, batch.looked)
        for optimizer, _ in self.descents:
            optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(outcome.loss).backward()  # type: ignore[no-untyped-call]
        for optimizer, _ in self.descents:
            self.scaler.unscale_(optimizer)
        gradients = [each.grad for each in self.model.parameters() if each.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._check_norm(float(norm), float(outcome.loss.detach()), step, saved)
        if math.isfinite(norm):  # else the scaler tries a smaller factor, and nothing moves
            for optimizer, _ in self.descents:
                self.scaler.step(optimizer)
        self.scaler.update()
        return outcome, norm

    def _check_norm(self, norm: float, loss: float, step: int, saved: Checkpoint | None) -> None:
        """Refuse a gradient that would spoil the weights; it is the same on all ranks, so that all of them do."""
        skipped = self.scaler.is_enabled() and not math.isfinite(norm) and math.isfinite(loss)  # too large a scale
        usual = self.seen >= SETTLED and norm > EXPLODED * self.usual_norm
        if (not math.isfinite(norm) and not skipped) or usual:
            what = "exploded" if math.isfinite(norm) else "is not finite"
            where = f"step {saved.step} is kept in {saved.path}" if saved else "no checkpoint was due before it"
            raise JobError(
                f"the gradient {what} at step {step + 1}: norm {norm:.3g}, loss {loss:.3g}; {where}",
                "lower train.learning_rate, lengthen train.warmup_fraction or raise the temperature",
            )
        if not skipped:
            self.usual_norm = norm if self.seen == 0 else 0.9 * self.usual_norm + 0.1 * norm
            self.seen += 1

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

    def save(self, out: Path, step: int, meter: Meter) -> Checkpoint:
        """Rank 0 writes a checkpoint; all ranks call it."""
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
