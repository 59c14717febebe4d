"""Makes the table of methods in results.md and images/family.png.

xclr compare --sweep family --json | python -m docs.family

Every method with its mean and 95% interval (Student-t over seeds), and its differences to X-CLR seed by seed, corrected
for all that are looked at.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from scipy import stats

from xclr.report.html import picture
from xclr.study.numbers import holm

PATH = Path(__file__).parent / "images" / "family.png"
COLUMNS = {
    "kind": "random/top1",
    "place gap": "gap/gap",
    "new colours": "combinations/top1",
    "colour": "colour/top1",
    "texture": "texture/top1",
    "120 labels": "random-120/top1",
}
AXES = ("kind", "colour")
LETTER, HIGH = 0.5, 2.2  # points that a name takes
LEVEL = 0.05
AGAINST = "xclr"
TOLD_ELSEWHERE = (
    "momentum=",
    "queue=",
    "hardest=",
    "mixed=",
    "mixed_with_query=",
    "prototypes=",
)  # in the sweep's file
SHORT = {"alignment=1.0 uniformity=1.0 cross_uniformity=1.0": "and the gap"}
Scores = Mapping[int, Mapping[str, float]]  # of a method: by seed and column, points


def main() -> None:
    """Read the cells, print the table and write the plot."""
    scores = scores_of(json.load(sys.stdin))
    marks = stand(scores)
    print(f"| method | {' | '.join(COLUMNS)} |")
    print("|---" * (1 + len(COLUMNS)) + "|")
    for method, seeds in scores.items():
        cells = (told(method, column, seeds, marks) for column in COLUMNS)
        print(f"| {method} | {' | '.join(cells)} |")
    PATH.write_bytes(picture("Colour against kind, percent", lambda axes: draw(axes, scores), (8.0, 5.6)))


def scores_of(cells: list[dict[str, object]]) -> dict[str, dict[int, dict[str, float]]]:
    """Points by method, seed and column."""
    found: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for cell in cells:
        scores = cell["scores"]
        if isinstance(scores, dict) and scores:
            points = {name: 100 * scores[f"factors/{key}"] for name, key in COLUMNS.items()}
            found[shortened(str(cell["method"]))][int(str(cell["seed"]))] = points
    return found


def shortened(method: str) -> str:
    """A method's name without the settings of its scale."""
    for long, short in SHORT.items():
        method = method.replace(long, short)
    return " ".join(word for word in method.split() if not word.startswith(TOLD_ELSEWHERE)).replace(".0", "")


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of the 95% interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values)), float(half)


def stand(scores: Mapping[str, Scores]) -> set[tuple[str, str]]:
    """The methods and columns whose difference to AGAINST is told from 0, corrected for all of them (Holm)."""
    others = [(method, column) for method in scores if method != AGAINST for column in COLUMNS]
    ps = []
    for method, column in others:
        gaps = [points[column] - scores[AGAINST][seed][column] for seed, points in scores[method].items()]
        ps.append(float(stats.ttest_1samp(gaps, 0).pvalue))
    return {each for each, p in zip(others, holm(ps), strict=True) if p < LEVEL}


def told(method: str, column: str, seeds: Scores, marks: set[tuple[str, str]]) -> str:
    """A cell of the table, in bold where it stands."""
    mean, half = interval([points[column] for points in seeds.values()])
    cell = f"{mean:.1f} ± {half:.1f}"
    return f"**{cell}**" if (method, column) in marks else cell


def draw(axes: Axes, scores: Mapping[str, Scores]) -> None:
    """Each method where kind and colour put it, and its name beside it, below those that stand there already."""
    named: list[tuple[float, float, float]] = []
    means = {
        method: [interval([each[name] for each in seeds.values()]) for name in AXES] for method, seeds in scores.items()
    }
    for method, ((x, wide), (y, high)) in sorted(means.items(), key=lambda each: -each[1][1][0]):
        axes.errorbar(x, y, xerr=wide, yerr=high, marker="o", markersize=4, linewidth=0.4, alpha=0.6)
        height, end = y, x + LETTER * len(method)
        while any(x < right and left < end and abs(height - low) < HIGH for left, right, low in named):
            height -= HIGH / 4
        named.append((x, end, height))
        line = {"arrowstyle": "-", "linewidth": 0.4} if y - height > HIGH / 2 else None
        axes.annotate(method, (x, y), xytext=(x + 0.6, height), fontsize=7, va="center", arrowprops=line)
    axes.set_xlabel("kind, random places")
    axes.set_ylabel("colour")


if __name__ == "__main__":
    main()
