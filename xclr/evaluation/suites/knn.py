"""Suite `knn`: the class of the nearest training pictures, without any fitting."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from xclr.errors import DataError
from xclr.evaluation.data import Answers, Features, FeatureSet, Ints, Labels, SuiteResult, of_split, predictions
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.linear import TOP, accuracies
from xclr.evaluation.suites.probed import labelled
from xclr.graph import topk

K, TEMPERATURE = 20, 0.07  # Wu et al. 2018 (arXiv 1805.01978) vote with weights exp(cosine / 0.07)
BLOCK = 4096
SPLIT = "val"


def knn_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """top1, top5 and per_class of split "val" by a vote of the K nearest pictures of split "train", by cosine.

    Pictures without a target are left out. Raises DataError without pictures in either split.
    """
    train = of_split(features.pictures, labels, "train", labels.target)
    if not len(train.rows):
        raise DataError("no training picture has a label", "check evaluate.roots, or leave the suite out")
    items = labelled(features, labels, SPLIT)
    ranked = vote(items, train, labels.target[train.rows])
    targets = labels.targets.take(items.rows)
    scores = accuracies(config, SPLIT, targets.first, ranked)
    return SuiteResult(scores, predictions([Answers(SPLIT, items.rows, targets, ranked[:, 0])]))


def vote(items: FeatureSet, train: FeatureSet, classes: Ints) -> Ints:
    """The five classes with the largest sums of exp(cosine / 0.07) among each item's nearest training pictures.

    classes [N] are those of the training pictures; returns [n, min(5, C)], best first, of equal sums the lower class;
    -1 where fewer classes got a vote.
    """
    known, place = np.unique(classes, return_inverse=True)
    keys, places, found = _unit(train), torch.from_numpy(place), []
    queries = _unit(items)
    for start in range(0, len(queries), BLOCK):
        part = queries[start : start + BLOCK]
        near = topk(part, keys, min(K, len(keys)), block=BLOCK)
        votes = torch.zeros(len(part), len(known), dtype=torch.float64)
        votes.scatter_add_(1, places[near.ids], (near.sims.double() / TEMPERATURE).exp())
        sums, best = (each[:, :TOP].numpy() for each in votes.sort(dim=1, descending=True, stable=True))
        found.append(np.where(sums > 0, known[best], -1))
    return np.concatenate(found)


def _unit(features: FeatureSet) -> Tensor:
    """Unit vectors float32 [n, d], the one copy that is made."""
    unit = torch.empty(features.vectors.shape)
    for start in range(0, len(unit), BLOCK):
        part = torch.from_numpy(np.array(features.vectors[start : start + BLOCK], dtype=np.float32))
        unit[start : start + BLOCK] = F.normalize(part)
    return unit
