"""Suite `own-finetune`: what a backbone that was trained on, with a classifier, says of a recipe's own pictures."""

from __future__ import annotations

from xclr.evaluation.data import Features, Labels, SuiteResult
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.finetune import scored
from xclr.evaluation.suites.own import held_out


def own_finetune_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """The scores of `finetune` on the held-out pictures, whose logits are the features; raises DataError as it does."""
    split, items = held_out(features, labels)
    return scored(items, labels, config, split)
