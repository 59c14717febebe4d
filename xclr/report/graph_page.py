"""How the graph's page looks: plots, tables, and a sheet of pictures to leaf through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from xclr.graph.neighbours import NEAR_DUPLICATE
from xclr.recipe.scenes import FACTORS
from xclr.report import graph_facts, html
from xclr.report.graph_facts import (
    BINS,
    DEFAULT_TEMPERATURE,
    TEMPERATURES,
    Graph,
    Group,
    Ints,
    Neighbourhood,
    SampledPairs,
)
from xclr.report.graph_truth import FACT, Truth

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN = "#3b82c4", "#d9822b", "#2f9e6e"


@dataclass(frozen=True)
class Shown:
    """What the page shows."""

    facts: Mapping[str, str]
    graph: Graph
    entropies: Mapping[int, npt.NDArray[np.float64]]
    random: Ints  # histogram of random pairs
    groups: Sequence[Group]
    questions: Sequence[Neighbourhood]
    captions: Mapping[int, str]
    truth: Truth | None = None  # of drawn scenes


def render(shown: Shown, images: Path) -> str:
    """The page as HTML."""
    graph, named, truth = shown.graph, shown.captions, shown.truth
    sizes = np.bincount(graph.components)
    return html.environment().get_template("graph.html.j2").render(
        title=shown.facts["data"],
        facts=shown.facts,
        plots=[
            degrees(graph), similarities(graph, shown.random), entropy(shown.entropies),
            *([beside_truth(truth)] if truth else []),
        ],
        truth=truth,
        effective={"sizes": list(shown.entropies), "lines": effective(shown.entropies)},
        temperature=DEFAULT_TEMPERATURE,
        components={
            "number": len(sizes), "alone": int((sizes == 1).sum()), "share": float(sizes.max() / len(graph.nodes)),
            "groups": [(each.size, [named[row] for row in each.rows.tolist()]) for each in shown.groups],
        },
        duplicates=_listed(graph.duplicates, named),
        similar=_listed(graph.similar, named),
        near=NEAR_DUPLICATE,
        questions=[_tiles(each, named) for each in shown.questions],
        thumbnails=graph_facts.thumbnails(images, shown.questions),
        neighbours=graph_facts.NEIGHBOURS,
        side=graph_facts.SIDE,
    )  # fmt: skip


def _listed(pairs: SampledPairs, named: Mapping[int, str]) -> list[tuple[float, str, str]]:
    ends = zip(pairs.sims.tolist(), pairs.rows.tolist(), strict=True)
    return [(sim, named[left], named[right]) for sim, (left, right) in ends]


def _tiles(question: Neighbourhood, named: Mapping[int, str]) -> list[tuple[int, str, float | None]]:
    """Row, caption and similarity: the picture asked for, then its neighbours."""
    rows = question.rows.tolist()
    return [(row, named[row], sim) for row, sim in zip(rows, [None, *question.sims.tolist()], strict=True)]


def effective(entropies: Mapping[int, npt.NDArray[np.float64]]) -> list[tuple[float, list[str]]]:
    """exp(entropy) at each temperature, one column a batch size: over how many views a target is spread."""
    columns = [np.exp(values) for values in entropies.values()]
    return [(tau, [f"{column[row]:,.1f}" for column in columns]) for row, tau in enumerate(TEMPERATURES)]


def degrees(graph: Graph) -> tuple[str, Markup]:
    """Captions by how many others are above the cut-off, in powers of two."""
    most = max(1, int(graph.counts.max()))
    edges = np.concatenate([[0, 1], 2 ** np.arange(1, int(np.ceil(np.log2(most + 1))) + 1)])
    tally = np.histogram(graph.counts, np.append(edges, edges[-1] * 2))[0][: len(edges)]
    labels = [f"{low}" if high - low == 1 else f"{low}–{high - 1}" for low, high in pairwise(edges)]
    tally = tally[: len(labels)]

    def bars(axes: Axes) -> None:
        axes.bar(range(len(labels)), tally, color=BLUE, width=0.85)
        step = max(1, -(-len(labels) // 5))
        axes.set_xticks(range(0, len(labels), step), labels[::step])
        axes.set_xlabel("similar captions, number")
        axes.set_ylabel("captions, number")

    return "Similar captions of a caption", html.plot("degrees", "degrees", bars)


def similarities(graph: Graph, random: Ints) -> tuple[str, Markup]:
    """Shares of random pairs, of nearest neighbours, and of the edges kept, by similarity."""
    nearest = np.histogram(graph.nearest[~np.isnan(graph.nearest)], BINS)[0]
    series = {"random pairs": (random, ORANGE), "nearest": (nearest, BLUE), "edges kept": (graph.histogram, GREEN)}

    def steps(axes: Axes) -> None:
        for name, (tally, colour) in series.items():
            if tally.sum():
                axes.stairs(tally / tally.sum(), BINS, color=colour, label=name, linewidth=1.2)
        axes.set_xlim(-0.3, 1)
        axes.set_xlabel("cosine, -1 to 1")
        axes.set_ylabel("share of the pairs")
        axes.legend(frameon=False, labelcolor=html.INK, fontsize=7)

    return "How similar captions are", html.plot("similarities", "similarities", steps)


def entropy(entropies: Mapping[int, npt.NDArray[np.float64]]) -> tuple[str, Markup]:
    """Entropy of the targets over temperature, a line a batch size."""

    def lines(axes: Axes) -> None:
        for (size, values), colour in zip(entropies.items(), (BLUE, GREEN, ORANGE), strict=False):
            axes.plot(TEMPERATURES, values, color=colour, linewidth=1.2, label=f"batch {size:,}")
            axes.axhline(np.log(2 * size - 1), color=colour, linewidth=0.6, linestyle=":")
        axes.axvline(DEFAULT_TEMPERATURE, color=html.INK, linewidth=0.5, linestyle="--")
        axes.set_xscale("log")
        axes.set_xticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
        axes.set_xlabel("temperature of the targets, no unit")
        axes.set_ylabel("entropy, nats")
        axes.legend(frameon=False, labelcolor=html.INK, fontsize=7)

    return "How spread the targets are", html.plot("target entropy", "entropy", lines)


def beside_truth(truth: Truth) -> tuple[str, Markup]:
    """Medians and quartiles of the cosines of captions, by how many factors their pictures have in common."""
    numbers, cosines = truth.quartiles()

    def marks(axes: Axes) -> None:
        axes.vlines(numbers, cosines[:, 0], cosines[:, 2], color=BLUE, linewidth=1.2)
        axes.plot(numbers, cosines[:, 1], "o", color=BLUE, markersize=4)
        axes.set_xlim(-0.5, len(FACTORS) + 0.5)
        axes.set_xticks(range(len(FACTORS) + 1))
        axes.set_xlabel("factors in common, number")
        axes.set_ylabel("cosine, -1 to 1")

    return FACT.capitalize(), html.plot(FACT, "truth", marks)
