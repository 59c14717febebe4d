"""Suite `factors`: which factors of drawn scenes a linear probe finds in the frozen features, and at what cost."""

from __future__ import annotations

import numpy as np

from xclr.captions.scenes import COMBINATIONS, PLACES, USUAL
from xclr.errors import DataError
from xclr.evaluation.data import (
    Answers,
    Bools,
    Features,
    FeatureSet,
    Ints,
    Labels,
    Ragged,
    SuiteResult,
    of_split,
    predictions,
)
from xclr.evaluation.score import Score
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.few_shot import DRAWS, draws_score, one_rate, shares
from xclr.evaluation.suites.imagenet9 import gap
from xclr.evaluation.suites.linear import best_of, fit_head
from xclr.files import TRAIN

KIND = "kind"
SAME, RANDOM = "same", "random"
JUDGED_ON = {SAME: USUAL, RANDOM: PLACES, COMBINATIONS: COMBINATIONS}  # by what is judged, the split; others: PLACES
FEW = (120, 1_000)  # labels


def factors_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """top1 of a linear probe for each factor, fitted to split "train".

    The kind is judged where places are as in training (split same), where they are random (random), and in colours
    that training never shows it in (combinations); gap is same minus random. Colour, texture and place are judged
    where places are random. Of 120 and 1,000 labels (random-120, colour-1000, ...) the value is the mean of three
    draws, stratified, the smaller within the larger. Raises DataError for data whose factors nobody knows.
    """
    train = of_split(features.pictures, labels, TRAIN)
    if not labels.factors or not len(train.rows):
        raise DataError("no factor of these pictures is known", "set data.source: scenes, or leave the suite out")
    scores, parts = [], []
    for factor, known in labels.factors.items():
        judged = _judged(features.pictures, labels, factor)
        for number in (each for each in (*FEW, len(train.rows)) if each <= len(train.rows)):
            found, answers = _probed(train, judged, known, config, number)
            scores += found
            parts += answers
    return SuiteResult(scores, predictions(parts))


def _judged(pictures: FeatureSet, labels: Labels, factor: str) -> dict[str, FeatureSet]:
    """The pictures that a factor is judged on, by what the scores call them."""
    named = JUDGED_ON if factor == KIND else {factor: PLACES}
    items = {name: of_split(pictures, labels, split) for name, split in named.items()}
    return {name: each for name, each in items.items() if len(each.rows)}


def _probed(
    train: FeatureSet, judged: dict[str, FeatureSet], known: Ints, config: SuiteConfig, number: int
) -> tuple[list[Score], list[Answers]]:
    """Scores and answers of probes that are fitted to so many labels: once to all, else to DRAWS draws."""
    few = number < len(train.rows)
    how = config.model_copy(update={"probe": one_rate(config.probe)}) if few else config
    right, parts = {name: list[Bools]() for name in judged}, []
    for draw in range(DRAWS if few else 1):
        head = fit_head(drawn(train, known, number, config.seed, draw), known, how)
        for name, items in judged.items():
            target, guesses = known[items.rows], best_of(head, items, 1)[:, 0]
            right[name].append(target == guesses)
            parts.append(
                Answers(f"{name}-{number}/{draw}" if few else name, items.rows, Ragged.single(target), guesses)
            )
    called = {name: f"{name}-{number}" if few else name for name in judged}
    scores = [draws_score(config, called[name], np.array(each)) for name, each in right.items()]
    if not few and {SAME, RANDOM} <= right.keys():
        scores.append(gap(config, right[SAME][0], right[RANDOM][0]))
    return scores, parts


def drawn(train: FeatureSet, known: Ints, number: int, seed: int, draw: int) -> FeatureSet:
    """So many of the training pictures, as many of each class as there are in all; more have these among them."""
    order = np.argsort(shares(known[train.rows], seed, draw), kind="stable")
    mask = np.zeros(len(order), dtype=np.bool_)
    mask[order[:number]] = True
    return train.where(mask)
