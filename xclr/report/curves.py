"""Training curves as small pictures for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from markupsafe import Markup

from xclr.report import html
from xclr.training.spool import SPOOL, read_spool

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 400  # of a line, at most: more than a small plot can show
EPOCH, LOSS = "train/epoch", "train/loss"
TIME = "share of the time"


class Metric(NamedTuple):
    """A training metric in words, and its unit, or what its numbers are where they have none."""

    title: str
    unit: str


METRICS: Mapping[str, Metric] = {
    LOSS: Metric("loss", "nats"),
    "train/target_entropy": Metric("entropy of the targets", "nats"),
    "train/local_loss": Metric("loss of the local pairs", "nats"),
    "train/stages_apart": Metric("distance of both networks' stages", "mean squared distance, summed"),
    "train/positive_mass": Metric("target mass on the other view", "share of the mass"),
    "train/knn_top1": Metric("k-NN top-1 of a held-out sample", "share of its pictures"),
    "train/rankme": Metric("effective rank of the features", "dimensions"),
    "train/dead_dimensions": Metric("dead dimensions", "share of all dimensions"),
    "train/alignment": Metric("alignment of the views", "mean squared distance"),
    "train/uniformity": Metric("uniformity of the features", "log of mean exp(-2 distance²)"),
    "train/unlearned": Metric("what is not learned yet", "share of what can be"),
    "train/temperature": Metric("temperature of the loss", "no unit"),
    "train/learning_rate": Metric("learning rate", "no unit"),
    "train/gradient_norm": Metric("gradient norm", "nats per unit of weight"),
    "train/images_per_s": Metric("speed", "pictures a second"),
    "train/data_wait": Metric("waiting for data", TIME),
    "train/read": Metric("reading files", TIME),
    "train/decode": Metric("decoding pictures", TIME),
    "train/cut": Metric("cutting views", TIME),
    "train/copy": Metric("copying to the GPU", TIME),
    "train/compute": Metric("computing", TIME),
    "train/memory_gb": Metric("memory, at most", "GB"),
    "train/gpu_utilisation": Metric("GPU at work", TIME),
}


def metric_of(name: str) -> Metric:
    """What a metric is; one that METRICS does not know has its own name, and no unit."""
    return METRICS.get(name, Metric(name.removeprefix("train/").replace("_", " "), "no unit known"))


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
        axes.set_xlabel("epochs")
        axes.set_ylabel(plot.axis)

    return html.plot(plot.title, f"{plot.title} {plot.axis}", lines)
