"""Objectives as modules: heads on top of the features, and the targets each one trains on.

A module sees this rank's features [2b, F] (all first views, then all second views) and the row ids [b] of its
samples; it gathers candidates from all ranks and returns the mean loss over its own anchors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, singledispatch
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xclr.errors import DataError
from xclr.graph import ClassGraph, EmbeddingLookup, SimilaritySource
from xclr.objective import (
    anchor_index,
    class_targets,
    contrastive,
    cosine_logits,
    excluding,
    gather_rows,
    gather_views,
    identity_targets,
    pair_targets,
    self_mask,
    soft_targets,
)
from xclr.recipe import CLIPConfig, ObjectiveConfig, SimCLRConfig, SupConConfig, TrainConfig, XCLRConfig
from xclr.training.model import TextTower, projector
from xclr.training.words import tokenize, vocabulary

Targets = Callable[[Tensor, Tensor, Tensor], Tensor]  # (rows [b], all rows [B], anchors [2b]) -> [2b, 2B]


class Outcome(NamedTuple):
    """A loss to descend, and what computes the numbers to watch on the steps that are logged; all scalars."""

    loss: Tensor
    report: Callable[[], dict[str, Tensor]]


@dataclass(frozen=True)
class Materials:
    """Where an objective finds what it trains on: the directories of artifacts by role."""

    inputs: Mapping[str, Path]
    features: int
    config: TrainConfig


class ViewObjective(nn.Module):
    """Image-image contrast: every view is an anchor, all other views of the global batch are candidates."""

    def __init__(self, head: nn.Module, temperature: float, targets: Targets) -> None:
        super().__init__()
        self.head = head
        self.temperature = temperature
        self.targets = targets

    def forward(self, features: Tensor, rows: Tensor) -> Outcome:
        """Cross-entropy between softmax(z_i.z_j / temperature) and the targets, the diagonal left out of both."""
        z = F.normalize(self.head(features), dim=1)
        candidates, all_rows = gather_views(z), gather_rows(rows)
        anchors = anchor_index(len(rows), device=rows.device)
        targets = self.targets(rows, all_rows, anchors)
        logits = cosine_logits(z, candidates, temperature=self.temperature)
        loss = contrastive(logits, targets, excluding(self_mask(anchors, len(candidates))))
        return Outcome(loss, partial(_target_report, targets, anchors))


class CLIPObjective(nn.Module):
    """Image-text contrast in both directions, each view by itself; the scale is learned and limited."""

    def __init__(self, head: nn.Module, text: nn.Module, texts: Tensor, config: CLIPConfig) -> None:
        super().__init__()
        self.head, self.text = head, text
        self.register_buffer("texts", texts, persistent=False)  # [n, ...] what the text tower reads, by row id
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.init_temperature)))
        self.max_scale = config.max_scale

    def forward(self, features: Tensor, rows: Tensor) -> Outcome:
        """Mean over views and directions of the cross-entropy with the own caption (the own picture) as target."""
        z = F.normalize(self.head(features), dim=1)
        t = F.normalize(self.text(self.get_buffer("texts")[rows]), dim=1)
        with torch.no_grad():  # the parameter itself, so that its gradient can bring it down again
            self.log_scale.clamp_(max=math.log(self.max_scale))
        scale = self.log_scale.exp()
        pictures, captions = gather_views(z).chunk(2), gather_rows(t)
        targets = identity_targets(anchor_index(len(rows), views=1, device=rows.device), len(captions))
        losses = [
            (
                contrastive(cosine_logits(own, captions, temperature=1 / scale), targets)
                + contrastive(cosine_logits(t, theirs, temperature=1 / scale), targets)
            )
            / 2
            for own, theirs in zip(z.chunk(2), pictures, strict=True)
        ]
        return Outcome(torch.stack(losses).mean(), lambda: {"scale": scale.detach()})


@singledispatch
def build_objective(config: ObjectiveConfig, materials: Materials) -> nn.Module | None:
    """The trainable part of an objective on `materials.features` features; None where nothing is trained."""
    return None


@build_objective.register
def _(config: SimCLRConfig, materials: Materials) -> nn.Module:
    def targets(rows: Tensor, all_rows: Tensor, anchors: Tensor) -> Tensor:
        return pair_targets(anchors, 2 * len(all_rows))

    return ViewObjective(projector(materials.features, materials.config), config.temperature, targets)


@build_objective.register
def _(config: SupConConfig, materials: Materials) -> nn.Module:
    labels = _labels(materials.inputs["captions"])

    def targets(rows: Tensor, all_rows: Tensor, anchors: Tensor) -> Tensor:
        return class_targets(labels[rows].repeat(2), labels[all_rows].repeat(2), anchors)

    return ViewObjective(projector(materials.features, materials.config), config.temperature, targets)


@build_objective.register
def _(config: XCLRConfig, materials: Materials) -> nn.Module:
    source = _similarity(materials.inputs)

    def targets(rows: Tensor, all_rows: Tensor, anchors: Tensor) -> Tensor:
        similarity = source.block(rows, all_rows).repeat(2, 2)
        exclude = self_mask(anchors, similarity.shape[1])
        return soft_targets(similarity, temperature=config.target_temperature, exclude=exclude)

    return ViewObjective(projector(materials.features, materials.config), config.temperature, targets)


@build_objective.register
def _(config: CLIPConfig, materials: Materials) -> nn.Module:
    out = materials.config.projector_out
    text: nn.Module
    if config.text == "frozen":
        texts = torch.from_numpy(np.load(materials.inputs["embeddings"] / "vectors.npy").astype(np.float32))
        hidden = materials.config.projector_hidden
        text = nn.Sequential(nn.Linear(texts.shape[1], hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out))
    else:
        texts, known = _tokens(materials.inputs["captions"])
        text = TextTower(len(known) + 2, texts.shape[1], out)
    return CLIPObjective(projector(materials.features, materials.config), text, texts, config)


def _similarity(inputs: Mapping[str, Path]) -> SimilaritySource:
    if "class_graph" in inputs:
        return ClassGraph.open(inputs["class_graph"] / "graph_class.parquet", inputs["captions"] / "captions.parquet")
    return EmbeddingLookup.open(inputs["embeddings"] / "vectors.npy")


def _labels(captions: Path) -> Tensor:
    labels = pq.read_table(captions / "captions.parquet", columns=["label"]).column("label")
    if labels.null_count == len(labels):
        raise DataError("these data have no classes", "set data.label_column, or leave supcon out")
    classes = torch.from_numpy(np.asarray(labels.fill_null(-1), dtype=np.int64))
    return torch.where(classes < 0, -1 - torch.arange(len(classes)), classes)  # a row without class is one of its own


def _tokens(captions: Path) -> tuple[Tensor, dict[str, int]]:
    table = pq.read_table(captions / "captions.parquet", columns=["caption", "split"])
    texts, splits = table.column("caption").to_pylist(), table.column("split").to_pylist()
    known = vocabulary(text for text, split in zip(texts, splits, strict=True) if split == "train")
    return tokenize(texts, known), known


def _target_report(targets: Tensor, anchors: Tensor) -> dict[str, Tensor]:
    entropy = torch.special.entr(targets).sum(1).mean()
    pair = pair_targets(anchors, targets.shape[1])
    return {"target_entropy": entropy, "positive_mass": (targets * pair).sum(1).mean()}
