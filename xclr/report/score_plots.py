"""Final scores as dots with their intervals: a panel for each column of the tables, a row for each method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from xclr.evaluation.score import Summary, summarise
from xclr.evaluation.significance import Key, Method
from xclr.report import html
from xclr.report.tables import MARK, columns_of, marked_of, percent, rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, EDGES, ROW = 3.4, 0.5, 0.17  # inches: of a panel, of its lower axis, of a method


@dataclass(frozen=True)
class Panel:
    """The scores of one column, in the order of its table."""

    title: str
    unit: str
    scores: Mapping[Method, Summary]


def panels_of(scores: pa.Table) -> Iterator[Panel]:
    """A panel for each column that the tables of these scores have, in their order."""
    found: dict[Key, dict[Method, Summary]] = {}
    for each in sorted(summarise(scores), key=lambda each: rank(each.method, each.graph)):
        found.setdefault((each.suite, each.split, each.metric), {})[each.method, each.graph] = each
    columns = [each for group in columns_of(found).values() for each in group] if found else []
    marked = marked_of(columns, scores)
    for column in columns:
        yield Panel(column.heading + MARK * (column.heading in marked), column.unit, found[column.key])


def draw_panel(panel: Panel, labels: Mapping[Method, str], colours: Mapping[Method, str]) -> Markup:
    """The panel as one <svg> element, whose name says its numbers."""

    def dots(axes: Axes) -> None:
        heights, own = range(len(panel.scores) - 1, -1, -1), [colours[method] for method in panel.scores]
        means = np.array([100 * each.mean for each in panel.scores.values()])
        halves = np.array([100 * (each.ci95 or 0.0) for each in panel.scores.values()])
        axes.hlines(heights, means - halves, means + halves, colors=own, linewidth=1.5)
        axes.scatter(means, heights, color=own, s=16)
        axes.set_yticks(heights, [labels[method] for method in panel.scores])
        axes.set_ylim(-0.6, len(panel.scores) - 0.4)
        axes.set_xlabel(panel.unit)

    told = (f"{labels[method]} {percent(each.mean, each.ci95)}" for method, each in panel.scores.items())
    title = f"{panel.title}, {panel.unit}: {'; '.join(told)}"
    return html.plot(title, f"score {panel.title}", dots, (WIDTH, EDGES + ROW * len(panel.scores)))
