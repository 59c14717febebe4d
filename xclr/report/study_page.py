"""A study as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xclr.report import html
from xclr.report.page import COLOURS, facts_of, file_name, write_html
from xclr.report.sheet import SIDE
from xclr.report.study import Findings, asked, grids_of_study, reading
from xclr.study.numbers import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (4.6, 2.6)  # inches
SQUARE = (4.6, 3.4)
COLOUR, REFERENCE = "#3b82c4", "#8b919a"


def write_study_page(home: Path, found: Findings, source: str, out: Path | None = None) -> Path:
    """Write the page of a study; `source` is its file's text, as it was fixed beforehand. Returns its path.

    It is study-<name>.html in HOME/pages, or in `out` where that is a folder, else the file `out`. Raises StoreError
    when the file cannot be written.
    """
    name = f"study-{file_name([found.study.name])}"
    return write_html(home / "pages" / name, name, render_study(found, source), out)


def render_study(found: Findings, source: str) -> str:
    """The page as HTML."""
    study = found.study
    differences = {f"{each.arms[0]} - {each.arms[1]}": each.found for each in found.compared}
    near = (-100 * study.equivalence, 100 * study.equivalence)
    plots = [
        html.plot("Arms: top-1, percent", "arms", _drawn(found.levels, "top-1, %"), SIZE),
        html.plot("Contrasts: points", "contrasts", _drawn(differences, "difference, percentage points", near), SIZE),
    ]
    plots += [
        html.plot(
            f"{name} and {asked(study)}, percent",
            name,
            _scattered(found.levels, levels, f"{asked(study)}, %", f"{name}, %"),
            SQUARE,
        )
        for name, levels in found.also.items()
    ]
    return html.environment().get_template("study.html.j2").render(
        name=study.name,
        question=study.question,
        facts=facts_of(study.recipe),
        reading=reading(found),
        grids=grids_of_study(found),
        plots=plots,
        source=source,
        side=SIDE,
    )  # fmt: skip


def _scattered(
    across: Mapping[str, Interval], up: Mapping[str, Interval], across_name: str, up_name: str
) -> Callable[[Axes], None]:
    """What puts each arm on axes by two numbers, with their intervals."""

    def draw(axes: Axes) -> None:
        for number, (arm, first) in enumerate(across.items()):
            second, colour = up[arm], COLOURS[number % len(COLOURS)]
            reach = [100 * (each.high - each.low) / 2 for each in (first, second)]
            axes.errorbar(
                100 * first.mean, 100 * second.mean, xerr=reach[0], yerr=reach[1], color=colour, marker="o",
                markersize=4, linewidth=0.8, capsize=2, label=arm,
            )  # fmt: skip
        axes.set_xlabel(across_name)
        axes.set_ylabel(up_name)
        axes.legend(frameon=False, labelcolor=html.INK, fontsize=7)

    return draw


def _drawn(
    intervals: Mapping[str, Interval], across: str, band: tuple[float, float] | None = None
) -> Callable[[Axes], None]:
    """What puts means and intervals on axes, a line each; `band` is what counts as no difference."""

    def draw(axes: Axes) -> None:
        if band is not None:
            axes.axvspan(*band, color=REFERENCE, alpha=0.2, linewidth=0)
            axes.axvline(0, color=REFERENCE, linewidth=0.8)
        heights = range(len(intervals) - 1, -1, -1)
        means = [100 * each.mean for each in intervals.values()]
        halves = [100 * (each.high - each.low) / 2 for each in intervals.values()]
        axes.errorbar(means, heights, xerr=halves, color=COLOUR, linestyle="none", marker="o", markersize=4, capsize=2)
        axes.set_yticks(list(heights), list(intervals))
        axes.set_ylim(-0.6, len(intervals) - 0.4)
        axes.set_xlabel(across)

    return draw
