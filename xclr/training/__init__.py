"""Pretraining: backbones, views, objectives as modules, the loop and its checkpoints."""

from xclr.training.batches import Batch, Batches, PictureBatches
from xclr.training.checkpoint import Checkpoint
from xclr.training.loop import Pretrainer, train
from xclr.training.model import build_backbone
from xclr.training.objectives import Materials, Outcome, build_objective
from xclr.training.pretrain import CHECKPOINT, run

__all__ = [
    "CHECKPOINT",
    "Batch",
    "Batches",
    "Checkpoint",
    "Materials",
    "Outcome",
    "PictureBatches",
    "Pretrainer",
    "build_backbone",
    "build_objective",
    "run",
    "train",
]
