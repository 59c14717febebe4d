"""Suite `imagenet-knn`: the class of the nearest training pictures, without any fitting."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional as F

from xclr.evaluation.data import FeatureSet, Ints, Labels, SuiteResult, of_split, predictions, variant
from xclr.evaluation.score import accuracy_score
from xclr.graph import topk
from xclr.stages import SuiteConfig

K, TEMPERATURE = 20, 0.07  # Wu et al. 2018 (arXiv 1805.01978) vote with weights exp(cosine / 0.07)
BLOCK = 4096


def knn_suite(features: Mapping[str, FeatureSet], labels: Labels, config: SuiteConfig) -> SuiteResult:
    """Top-1 of split "pictures" by a vote of the K nearest pictures of split "train", by cosine."""
    plain = variant(features.get("plain"), "plain")
    train, items = of_split(plain, labels, "train", labels.target), of_split(plain, labels, "pictures")
    guess = vote(items, train, labels.target[train.rows])
    target = labels.target[items.rows]
    score = accuracy_score(config, "pictures", target, guess)
    return SuiteResult([score], predictions([("pictures", items.rows, target, guess)], pa.int64()))


def vote(items: FeatureSet, train: FeatureSet, classes: Ints) -> Ints:
    """The class [n] with the largest sum of exp(cosine / 0.07) among each item's nearest training pictures."""
    queries, keys = (F.normalize(torch.from_numpy(each.vectors)) for each in (items, train))
    near = topk(queries, keys, min(K, len(keys)), block=BLOCK)
    votes = torch.zeros(len(queries), int(classes.max()) + 1)
    votes.scatter_add_(1, torch.from_numpy(classes)[near.ids], (near.sims / TEMPERATURE).exp())
    return np.asarray(votes.argmax(1))
