"""Training curves as small pictures for a page: SVG that takes the page's own colour and font."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from xclr.spool import SPOOL, read_spool

POINTS = 400  # of a line, at most: more than a small plot can show
INK = "#010203"  # stands for the page's text colour until the SVG is written
EPOCH, LOSS = "train/epoch", "train/loss"
METRICS: Mapping[str, tuple[str, str]] = {  # title, axis
    LOSS: ("loss", "loss"),
    "train/target_entropy": ("entropy of the targets", "nats"),
    "train/positive_mass": ("target mass on the other view", "share"),
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
    """The plot as one <svg> element with a title, safe to stand in HTML beside others."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{plot.title} {plot.axis}", "font.size": 8}):
        figure = Figure(figsize=(3.4, 2.2), layout="constrained")
        axes = figure.subplots()
        for trace in plot.traces:
            style = "--" if trace.dashed else "-"
            marker = "o" if len(trace.epochs) == 1 else None
            axes.plot(trace.epochs, trace.values, style, color=trace.colour, linewidth=1, marker=marker, markersize=3)
        axes.set_xlabel("epoch", color=INK)
        axes.set_ylabel(plot.axis, color=INK)
        axes.tick_params(colors=INK, width=0.5, length=3)
        axes.grid(color=INK, alpha=0.12, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set(color=INK, linewidth=0.5)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), plot.title)


def _inline(svg: str, title: str) -> Markup:
    """Only the element: no prologue, metadata or size; the page's colour, a name, and no id but those referred to."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :].rstrip()
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL).replace(INK, "currentColor")
    used = set(re.findall(r"#([\w-]+)", body))
    body = re.sub(r' id="([\w.-]+)"', lambda found: found[0] if found[1] in used else "", body)
    box = re.search(r'viewBox="[^"]+"', svg)
    assert box is not None, "matplotlib writes a viewBox"
    name = Markup.escape(title)
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img" aria-label="{name}">'
    return Markup(f"{head}<title>{name}</title>{body}")  # noqa: S704 - matplotlib escapes what it writes
