"""Suite `zero-shot`: each picture gets the class whose name, in many sentences, its projection is nearest to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from xclr.errors import DataError, RecipeError
from xclr.evaluation.data import Answers, Features, Labels, SuiteResult, of_split, predictions
from xclr.evaluation.networks.towers import PairTowers, projections
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.linear import listed_accuracies
from xclr.graph import topk
from xclr.graph.wordnet import imagenet_synsets

SPLIT = "val"
CAPTIONS = 4096  # at a time
BLOCK = 4096  # pictures at a time


def zero_shot_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """`scored` on split "val"; pictures without a target are left out.

    `features.pictures` are projected, `features.texts` has the class as row. Raises DataError without class vectors or
    labelled pictures, and for projections that are not finite.
    """
    items = of_split(features.pictures, labels, SPLIT, labels.target)
    if not len(items.rows):
        raise DataError(f"no picture of split {SPLIT!r} has a class", "check evaluate.roots.imagenet, or leave it out")
    return scored(replace(features, pictures=items), labels, config, SPLIT)


def scored(features: Features, labels: Labels, config: SuiteConfig, split: str) -> SuiteResult:
    """Score labelled pictures of a split by the cosine of their projections with one vector a class.

    Metrics: top1, top5 and per_class (the mean of the classes' accuracies); of equal cosines the lower class counts
    first. Raises DataError without class vectors, and for projections that are not finite.
    """
    if features.texts is None or not len(features.texts.rows):
        raise DataError("zero-shot has no classes to choose from", "leave it out, or give the data's classes names")
    items = features.pictures
    pictures, classes = (projections(each) for each in (items, features.texts))
    nearest = topk(pictures, classes, min(5, len(classes)), block=BLOCK).ids.numpy()
    ranked, targets = features.texts.rows[nearest], labels.targets.take(items.rows)
    scores = listed_accuracies(config, split, targets, targets.first, ranked)
    return SuiteResult(scores, predictions([Answers(split, items.rows, targets, ranked[:, 0])]))


def class_vectors(towers: PairTowers, names: Sequence[str], prompts: Sequence[str]) -> Tensor:
    """Unit rows float32 [C, d]: the mean over prompts of the unit vectors of "{}" filled with each of C names.

    Raises DataError without names, RecipeError without prompts or for one without "{}".
    Source: arXiv 2103.00020, section 3.1.4.
    """
    if not names:
        raise DataError("zero-shot has no classes to choose from", "leave it out, or give the data's classes names")
    blank = [prompt for prompt in prompts if "{}" not in prompt]
    if blank or not prompts:
        what = f"no place for a class's name in {blank}" if blank else "there are none"
        raise RecipeError(f"evaluate.prompts: {what}", 'write {} for the name, as in "a photo of a {}."')
    means, part = [], max(1, CAPTIONS // len(prompts))
    for start in range(0, len(names), part):
        some = names[start : start + part]
        vectors = towers.texts([prompt.replace("{}", name) for name in some for prompt in prompts])
        means.append(vectors.view(len(some), len(prompts), -1).mean(1))
    return F.normalize(torch.cat(means), dim=1)


def prompts_of(config: SuiteConfig) -> tuple[str, ...]:
    """The sentences to put a class's name into; without a choice of the recipe's the 80 that CLIP published."""
    return config.prompts or published_prompts()


def published_prompts() -> tuple[str, ...]:
    """CLIP's 80 sentences for ImageNet, "{}" for the name, as open_clip keeps them."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES  # here, because its import takes 3 s

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def curated(names: Sequence[str], synsets: Sequence[str | None]) -> Sequence[str]:
    """CLIP's names of ImageNet's classes where all `synsets` are among the 1,000; else the names as given."""
    place = {each: number for number, each in enumerate(imagenet_synsets())}
    numbers = [place[each] for each in synsets if each in place]
    if len(numbers) < len(names):
        return names
    from open_clip import IMAGENET_CLASSNAMES  # here, because its import takes 3 s

    return [IMAGENET_CLASSNAMES[each] for each in numbers]
