"""Suite `own-zero-shot`: each of a recipe's own pictures gets the class whose name, as a caption, it is nearest to."""

from __future__ import annotations

from dataclasses import replace

from xclr.evaluation.data import Features, Labels, SuiteResult
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.own import held_out
from xclr.evaluation.suites.zero_shot import scored


def own_zero_shot_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """The scores of `zero-shot` on the held-out pictures; raises DataError as it does."""
    split, items = held_out(features, labels)
    return scored(replace(features, pictures=items), labels, config, split)
