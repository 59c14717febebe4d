"""The stage `probe`: the linear head on ImageNet's training pictures that several suites apply, fitted once."""

from __future__ import annotations

from pathlib import Path

import torch

from xclr.errors import DataError
from xclr.evaluation.data import load_features, load_labels, of_split
from xclr.evaluation.heads import HeadConfig, fit_linear, save_head
from xclr.evaluation.stages import ProbeStageConfig
from xclr.recipe import ProbeConfig
from xclr.stage import Produced, Progress, Stage

PROBE = "probe.pt"
REFIT = 3  # times the epochs of the choice


def run(stage: Stage[ProbeStageConfig], out: Path, progress: Progress) -> Produced:
    """Write probe.pt: fitted to split "train" alone; neither other pictures nor their labels are looked at."""
    progress(0, 1)
    labels = load_labels(stage.inputs["labels"].path)
    train = of_split(load_features(stage.inputs["features"].path), labels, "train")
    if not len(train.rows):
        raise DataError("ImageNet's folder train has no pictures", "check evaluate.roots.imagenet")
    classes = torch.from_numpy(labels.target[train.rows])
    head = fit_linear(
        torch.from_numpy(train.vectors), classes, config=head_config(stage.config.probe, stage.config.seed)
    )
    save_head(head, out / PROBE)
    progress(1, 1)
    stats = {"rows": len(train.rows), "learning_rate": head.learning_rate, "weight_decay": head.weight_decay}
    return Produced((PROBE,), stats)


def head_config(probe: ProbeConfig, seed: int, *, crossed: bool = False) -> HeadConfig:
    """The settings of a recipe's head; `crossed`: chosen on several splits where one would have few pictures."""
    return HeadConfig(**probe.model_dump(), refit_epochs=REFIT * probe.epochs, seed=seed, crossed=crossed)
