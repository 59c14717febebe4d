"""Training curves as small pictures for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from xclr.report import html
from xclr.training.spool import SPOOL, read_spool

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 400  # of a line, at most: more than a small plot can show
EPOCH, LOSS = "train/epoch", "train/loss"
METRICS: Mapping[str, tuple[str, str]] = {  # title, axis
    LOSS: ("loss", "loss"),
    "train/target_entropy": ("entropy of the targets", "nats"),
    "train/positive_mass": ("target mass on the other view", "share"),
    "train/knn_top1": ("k-NN top-1 of a held-out sample", "share"),
    "train/rankme": ("effective rank of the features", "dimensions"),
    "train/dead_dimensions": ("dead dimensions", "share"),
    "train/images_per_s": ("speed", "pictures a second"),
    "train/learning_rate": ("learning rate", "learning rate"),
    "train/scale": ("scale of the logits", "1 / temperature"),
}


@dataclass(frozen=True)
class Trace:
    """One metric of one training: values [n] at epochs [n], drawn in `colour`; `dashed` tells it from its twin."""

    epochs: tuple[float, ...]
    values: tuple[float, ...]
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class Plot:
    """Traces that share their axes."""

    title: str
    axis: str
    traces: tuple[Trace, ...]


def read_metrics(checkpoint: Path) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """(epochs, values) of each training metric in a pretraining's spool, thinned to POINTS; {} when none was logged."""
    logged: dict[str, list[tuple[float, float]]] = {}
    for entry in read_spool(checkpoint / SPOOL):
        epoch = entry.metrics.get(EPOCH)
        for name, value in entry.metrics.items():
            if epoch is not None and name != EPOCH and name.startswith("train/"):
                logged.setdefault(name, []).append((epoch, value))
    return {name: _columns(points) for name, points in logged.items()}


def _columns(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    kept = np.linspace(0, len(points) - 1, min(len(points), POINTS)).round().astype(int)
    return tuple(points[each][0] for each in kept), tuple(points[each][1] for each in kept)


def draw(plot: Plot) -> Markup:
    """The plot as one <svg> element."""

    def lines(axes: Axes) -> None:
        for trace in plot.traces:
            style = "--" if trace.dashed else "-"
            marker = "o" if len(trace.epochs) == 1 else None
            axes.plot(trace.epochs, trace.values, style, color=trace.colour, linewidth=1, marker=marker, markersize=3)
        axes.set_xlabel("epoch")
        axes.set_ylabel(plot.axis)

    return html.plot(plot.title, f"{plot.title} {plot.axis}", lines)
