"""The pretrain stage: from artifacts to a backbone's weights, resumed from where an earlier attempt came to."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist

from xclr.errors import Stopped
from xclr.spool import SPOOL, Spool
from xclr.stages import PretrainConfig, Produced, Progress, Stage
from xclr.training import checkpoint
from xclr.training.checkpoint import Checkpoint
from xclr.training.loader import open_batches
from xclr.training.loop import Pretrainer, precision_of, train
from xclr.training.model import build_backbone
from xclr.training.objectives import Materials, build_objective
from xclr.training.stop import StopFlag

CHECKPOINT = "checkpoint.pt"
SAY_EVERY_S = 10.0  # in the job's log


def run(stage: Stage, out: Path, progress: Progress) -> Produced:
    """Write checkpoint.pt ({"backbone": weights}) and spool.jsonl; every rank runs it, rank 0 writes."""
    config = stage.config
    assert isinstance(config, PretrainConfig)
    inputs = {role: artifact.path for role, artifact in stage.inputs.items()}
    torch.manual_seed(config.seed)
    backbone, features = build_backbone(config.train)
    objective = build_objective(config.objective, Materials(inputs, features, config.train))
    resume = _agree(checkpoint.latest(out / "checkpoints"))
    spool = Spool(out / SPOOL, resume.step if resume else 0) if _first() else None
    stats: dict[str, float] = {"step": resume.step if resume else 0}
    if objective is not None:
        batches = open_batches(inputs["captions"], inputs["images"], config.train, config.seed)
        steps = config.train.epochs * batches.steps_per_epoch

        said = -SAY_EVERY_S

        def log(step: int, metrics: Mapping[str, float]) -> None:
            nonlocal said
            if spool is not None:
                spool(step, metrics)
                progress(step, steps)
                if time.monotonic() - said >= SAY_EVERY_S or step == steps:
                    said = time.monotonic()
                    print(_line(step, steps, metrics), flush=True)
            stats.update(metrics, step=step)

        model = Pretrainer(backbone, objective, precision_of(config.train))
        with StopFlag() as flag:
            try:
                train(config.train, batches, model, out=out, resume=resume, should_stop=flag, log=log)
            except Stopped as stopped:
                raise Stopped(str(stopped), flag.number) from None
        backbone = model.backbone
    if _first():
        checkpoint.write_tensors(out / CHECKPOINT, {"backbone": backbone.cpu().state_dict()})
    return Produced((CHECKPOINT, SPOOL), dict(stats), scratch=("checkpoints",))


def _line(step: int, steps: int, metrics: Mapping[str, float]) -> str:
    """What a job's log says of a step."""
    speed = metrics.get("train/images_per_s", math.nan)
    return f"step {step} of {steps}  loss {metrics['train/loss']:.4f}  {speed:,.0f} pictures/s"


def _first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _agree(found: Checkpoint | None) -> Checkpoint | None:
    """Rank 0's choice for everyone, whatever each sees of a shared file system."""
    if not dist.is_initialized():
        return found
    choice = [found]
    dist.broadcast_object_list(choice)
    return choice[0]
