"""What the graph's page tells of drawn scenes: what is true of a picture, and how far captions follow it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xclr.captions.shared import factors_of
from xclr.graph.neighbours import Halves
from xclr.recipe.scenes import FACTORS
from xclr.report.graph_facts import Floats, Ints, cosines_of, drawn_ends
from xclr.study.numbers import rank_correlation

FACT = "captions and truth"
QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Truth:
    """The factors of each row, places in FACTORS [n, 4], and how alike drawn pairs of rows are."""

    factors: Ints
    cosines: Floats  # [m], of the pairs' captions
    common: Ints  # [m], how many factors their pictures have in common

    @property
    def correlation(self) -> float:
        """Spearman's, of the cosines and the share of factors in common."""
        return rank_correlation(self.cosines, self.common)

    @property
    def facts(self) -> dict[str, str]:
        """For people."""
        return {FACT: f"{self.correlation:.2f}, rank correlation"}

    @property
    def stats(self) -> dict[str, float]:
        """For the manifest."""
        return {FACT.replace(" ", "_"): self.correlation}

    def told(self, row: int) -> str:
        """What is true of a row's picture, as words: red striped circle, sand."""
        numbers = dict(zip(FACTORS, self.factors[row].tolist(), strict=True))
        word = {name: FACTORS[name][number] for name, number in numbers.items()}
        return f"{word['colour']} {word['texture']} {word['kind']}, {word['place']}"

    def quartiles(self) -> tuple[Ints, npt.NDArray[np.float64]]:
        """How many factors pairs have in common, [b], and first quartile, median and third of their cosines, [b, 3]."""
        numbers = np.unique(self.common)
        return numbers, np.stack([np.quantile(self.cosines[self.common == each], QUARTILES) for each in numbers])


def truth_of(captions: Path, stored: Halves, seed: int) -> Truth | None:
    """The truth of a captions artifact beside the vectors of its rows [n, d]; None where it is not of drawn scenes."""
    found = factors_of(captions)
    if found is None:
        return None
    factors = np.stack([found[name] for name in FACTORS], axis=1)
    left, right = drawn_ends(len(factors), seed)
    common = (factors[left] == factors[right]).sum(1)
    return Truth(factors, cosines_of(stored, left, right), common)
