"""Pretraining: backbones, views, objectives as modules, the loop and its checkpoints."""

from xclr.training.batches import Batch, Batches, PictureBatches
from xclr.training.checkpoint import Checkpoint
from xclr.training.loader import StreamedBatches, open_batches
from xclr.training.loop import Learner, Pretrainer, precision_of, train
from xclr.training.model import build_backbone
from xclr.training.objectives import Materials, Outcome, build_objective
from xclr.training.pretrain import CHECKPOINT, fit, run
from xclr.training.ranks import Place

__all__ = [
    "CHECKPOINT",
    "Batch",
    "Batches",
    "Checkpoint",
    "Learner",
    "Materials",
    "Outcome",
    "PictureBatches",
    "Place",
    "Pretrainer",
    "StreamedBatches",
    "build_backbone",
    "build_objective",
    "fit",
    "open_batches",
    "precision_of",
    "run",
    "train",
]
