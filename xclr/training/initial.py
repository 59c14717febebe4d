"""The stage `initial`: weights that trainings start from, fitted to their backbone; trainings need no network then."""

from __future__ import annotations

from pathlib import Path

from xclr.stage import Produced, Progress, Stage
from xclr.training.checkpoint import write_tensors
from xclr.training.published import published
from xclr.training.stages import CHECKPOINT, InitialConfig
from xclr.training.weights import read_state, weights_for


def run(stage: Stage[InitialConfig], out: Path, progress: Progress) -> Produced:
    """Write checkpoint.pt, {"backbone": weights} as a pretraining does; raises RecipeError where they do not fit."""
    config = stage.config
    state = read_state(config.path) if config.path is not None else published(str(config.weights), config.train)
    weights = weights_for(config.train, state, config.weights or str(config.path))
    write_tensors(out / CHECKPOINT, {"backbone": weights})
    return Produced((CHECKPOINT,), {"weights": sum(each.numel() for each in weights.values())})
