"""Objectives as modules: features and row ids in, a loss and a report out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, singledispatch
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xclr.graph import EmbeddingLookup, SameClass, SimilaritySource, open_similarity
from xclr.objective import (
    TargetRows,
    anchor_index,
    at_least_float32,
    class_targets,
    contrast,
    default_block,
    gather_rows,
    gather_views,
    identity_targets,
    itself,
    itself_and_pair,
    pair_targets,
    retrieve,
    softened_targets,
    view_targets,
    weighted_pair_targets,
    weighted_targets,
)
from xclr.recipe import (
    CLIPConfig,
    CLOOBConfig,
    CWCLConfig,
    DCLConfig,
    DCLWConfig,
    GraphedConfig,
    LearnedScaleConfig,
    ObjectiveConfig,
    PairsConfig,
    SimCLRConfig,
    SoftCLIPConfig,
    SupConConfig,
    TargetGraph,
    TrainConfig,
    ViewsConfig,
    XCLRConfig,
)
from xclr.training.model import TextTower, projector
from xclr.training.words import FIRST, Vocabulary, tokenize, vocabulary

SPREAD_ROWS = 1024  # of which uniformity looks at all pairs


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


class Views(NamedTuple):
    """The views of a global batch, as one rank sees them."""

    z: Tensor  # [2b, d] this rank's unit rows, all first views, then all second
    candidates: Tensor  # [2B, d] those of all ranks, in the same order
    rows: Tensor  # [b] row ids
    all_rows: Tensor  # [B]
    anchors: Tensor  # [2b] columns of z's rows among the candidates


class Pairs(NamedTuple):
    """One view of each picture and its caption, as one rank sees them."""

    pictures: Tensor  # [b, d] this rank's unit rows
    captions: Tensor  # [b, d]
    all_pictures: Tensor  # [B, d] those of all ranks
    all_captions: Tensor  # [B, d]
    rows: Tensor  # [b] row ids
    all_rows: Tensor  # [B]
    own: Tensor  # [b] columns of this rank's among all
    temperature: float | Tensor


ViewTargets = Callable[[Views], TargetRows]
PairTargets = Callable[[Pairs], tuple[TargetRows, TargetRows]]  # of pictures over captions, of captions over pictures


class ViewObjective(nn.Module):
    """Image-image contrast: every view is an anchor, the views of the global batch are candidates."""

    def __init__(
        self,
        head: nn.Module,
        config: ViewsConfig,
        targets: ViewTargets,
        excluded: Callable[[Tensor, int], Tensor] = itself,
        *,
        blockwise_from: int = 2048,
    ) -> None:
        super().__init__()
        self.head = head
        self.temperature = config.temperature
        self.targets, self.excluded = targets, excluded
        self.blockwise_from = blockwise_from

    def forward(self, features: Tensor, rows: Tensor) -> Outcome:
        """The contrastive loss of this rank's views among those of all ranks."""
        z = unit(self.head(features))
        with torch.autocast(z.device.type, enabled=False):
            anchors = anchor_index(len(rows), device=rows.device)
            views = Views(z, gather_views(z), rows, gather_rows(rows), anchors)
            targets, count = self.targets(views), len(views.candidates)
            loss = contrast(
                z,
                views.candidates,
                targets,
                temperature=self.temperature,
                excluded=self.excluded(anchors, count),
                block=block_of(count, count, self.blockwise_from),
            )
        return Outcome(loss, partial(self._report, views, targets))

    @torch.no_grad()
    def _report(self, views: Views, targets: TargetRows) -> dict[str, Tensor]:
        pair = (views.anchors + len(views.all_rows)) % len(views.candidates)
        first, second = views.z.detach().chunk(2)
        return (
            {"temperature": first.new_tensor(self.temperature)}
            | target_report(targets, pair, len(views.candidates))
            | spread_report(first, second)
        )


class PairObjective(nn.Module):
    """Image-text contrast in both directions, each view by itself; the scale is learned and limited."""

    def __init__(self, towers: Towers, config: LearnedScaleConfig, targets: PairTargets) -> None:
        super().__init__()
        self.towers, self.targets = towers, targets
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.init_temperature)))
        self.max_scale = config.max_scale

    def forward(self, features: Tensor, rows: Tensor) -> Outcome:
        """Mean over views and directions of the contrastive loss between pictures and captions."""
        with torch.no_grad():  # the parameter itself, so that its gradient can bring it down again
            self.log_scale.clamp_(max=math.log(self.max_scale))
        temperature = 1 / self.log_scale.exp()
        views = self.towers(features, rows, temperature)
        targets = [self.targets(pairs) for pairs in views]
        losses = [self._loss(*each) for each in zip(views, targets, strict=True)]
        return Outcome(torch.stack(losses).mean(), partial(pair_report, views[0], targets[0]))

    def _loss(self, pairs: Pairs, targets: tuple[TargetRows, TargetRows]) -> Tensor:
        block = self.towers.block(len(pairs.all_rows))
        directions = ((pairs.pictures, pairs.all_captions), (pairs.captions, pairs.all_pictures))
        losses = [
            contrast(anchors, candidates, rows, temperature=pairs.temperature, block=block)
            for (anchors, candidates), rows in zip(directions, targets, strict=True)
        ]
        return (losses[0] + losses[1]) / 2


class CLOOBObjective(nn.Module):
    """InfoLOOB in both directions on what Hopfield networks retrieve from the batch's pictures and captions."""

    def __init__(self, towers: Towers, config: CLOOBConfig) -> None:
        super().__init__()
        self.towers, self.temperature, self.hopfield_scale = towers, 1 / config.scale, config.hopfield_scale

    def forward(self, features: Tensor, rows: Tensor) -> Outcome:
        """tau (InfoLOOB(U_x, U_y) + InfoLOOB(V_y, V_x)), mean over views; U from stored pictures x, V from captions y.

        Source: arXiv 2110.11316, equations 5 to 7.
        """
        views = self.towers(features, rows, self.temperature)
        losses = [self._loss(pairs) for pairs in views]
        return Outcome(torch.stack(losses).mean(), partial(pair_report, views[0], _own_captions(views[0])))

    def _loss(self, pairs: Pairs) -> Tensor:
        from_pictures = [self._retrieve(each, pairs.all_pictures) for each in (pairs.pictures, pairs.captions)]
        from_captions = [self._retrieve(each, pairs.all_captions) for each in (pairs.captions, pairs.pictures)]
        losses = [
            contrast(
                anchors,
                gather_rows(candidates),
                identity_rows(pairs.own, len(pairs.all_rows)),
                temperature=self.temperature,
                excluded=pairs.own[:, None],
                block=self.towers.block(len(pairs.all_rows)),
            )
            for anchors, candidates in (from_pictures, from_captions)
        ]
        return self.temperature * (losses[0] + losses[1])

    def _retrieve(self, queries: Tensor, stored: Tensor) -> Tensor:
        return retrieve(queries, stored, scale=self.hopfield_scale)


class Towers(nn.Module):
    """The head on the pictures' features, and the text tower on what `texts` gives for row ids.

    `words` are those of a text tower that reads tokens.
    """

    def __init__(
        self,
        head: nn.Module,
        text: nn.Module,
        texts: Callable[[Tensor], Tensor],
        blockwise_from: int,
        words: Vocabulary | None = None,
    ) -> None:
        super().__init__()
        self.head, self.text, self.texts = head, text, texts
        self.blockwise_from, self.words = blockwise_from, words

    def forward(self, features: Tensor, rows: Tensor, temperature: float | Tensor) -> list[Pairs]:
        """Pictures and captions of all ranks, once for each view."""
        z, t = unit(self.head(features)), unit(self.text(self.texts(rows)))
        all_captions, all_rows = gather_rows(t), gather_rows(rows)
        own = anchor_index(len(rows), views=1, device=rows.device)
        return [
            Pairs(pictures, t, all_pictures, all_captions, rows, all_rows, own, temperature)
            for pictures, all_pictures in zip(z.chunk(2), gather_views(z).chunk(2), strict=True)
        ]

    def block(self, samples: int) -> int | None:
        """Rows at a time; None for all at once."""
        return block_of(2 * samples, samples, self.blockwise_from)


def unit(x: Tensor) -> Tensor:
    """Rows of length one, in float32 or wider."""
    return F.normalize(x.to(at_least_float32(x)), dim=1)


def block_of(views: int, candidates: int, blockwise_from: int) -> int | None:
    """How many anchors a global batch takes at a time; None, all at once, below `blockwise_from` views."""
    return default_block(candidates) if views >= blockwise_from else None


def identity_rows(own: Tensor, candidates: int) -> TargetRows:
    """One-hot targets at the own columns."""
    return lambda part: identity_targets(own[part], candidates)


@singledispatch
def build_objective(config: ObjectiveConfig, materials: Materials) -> nn.Module | None:
    """The trainable part of an objective on `materials.features` features; None where nothing is trained."""
    return None


@build_objective.register
def _(config: SimCLRConfig, materials: Materials) -> nn.Module:
    return _views(config, materials, _other_views)


@build_objective.register
def _(config: DCLConfig, materials: Materials) -> nn.Module:
    return _views(config, materials, _other_views, itself_and_pair)


@build_objective.register
def _(config: DCLWConfig, materials: Materials) -> nn.Module:
    def targets(views: Views) -> TargetRows:
        first, second = views.candidates.chunk(2)
        return lambda part: weighted_pair_targets(first, second, views.anchors[part], sigma=config.sigma)

    return _views(config, materials, targets, itself_and_pair)


@build_objective.register
def _(config: SupConConfig, materials: Materials) -> nn.Module:
    labels = SameClass.open(materials.inputs["captions"] / "captions.parquet").labels

    def targets(views: Views) -> TargetRows:
        own, every = (_rows_of(labels, each).repeat(2) for each in (views.rows, views.all_rows))
        return lambda part: class_targets(own[part], every, views.anchors[part])

    return _views(config, materials, targets)


@build_objective.register
def _(config: XCLRConfig, materials: Materials) -> nn.Module:
    source = _similarity(config, materials)

    def targets(views: Views) -> TargetRows:
        similarity = source.between(views.rows.repeat(2), views.all_rows)
        return lambda part: view_targets(similarity(part), views.anchors[part], temperature=config.target_temperature)

    return _views(config, materials, targets)


@build_objective.register
def _(config: CLIPConfig, materials: Materials) -> nn.Module:
    return PairObjective(_towers(config, materials), config, _own_captions)


@build_objective.register
def _(config: CWCLConfig, materials: Materials) -> nn.Module:
    source = _similarity(config, materials)

    def targets(pairs: Pairs) -> tuple[TargetRows, TargetRows]:
        similarity = source.between(pairs.rows, pairs.all_rows)
        return _own_captions(pairs)[0], lambda part: weighted_targets(similarity(part))

    return PairObjective(_towers(config, materials), config, targets)


@build_objective.register
def _(config: SoftCLIPConfig, materials: Materials) -> nn.Module:
    def softened(own: Tensor, every: Tensor, pairs: Pairs) -> TargetRows:
        own, every = own.detach(), every.detach()
        return lambda part: softened_targets(
            own[part] @ every.T, pairs.own[part], temperature=pairs.temperature, mix=config.mix
        )

    def targets(pairs: Pairs) -> tuple[TargetRows, TargetRows]:
        pictures = softened(pairs.pictures, pairs.all_pictures, pairs)
        return pictures, softened(pairs.captions, pairs.all_captions, pairs)

    return PairObjective(_towers(config, materials), config, targets)


@build_objective.register
def _(config: CLOOBConfig, materials: Materials) -> nn.Module:
    return CLOOBObjective(_towers(config, materials), config)


def _views(
    config: ViewsConfig,
    materials: Materials,
    targets: ViewTargets,
    excluded: Callable[[Tensor, int], Tensor] = itself,
) -> nn.Module:
    head = projector(materials.features, materials.config)
    return ViewObjective(head, config, targets, excluded, blockwise_from=materials.config.blockwise_from)


def _other_views(views: Views) -> TargetRows:
    return lambda part: pair_targets(views.anchors[part], len(views.candidates))


def _own_captions(pairs: Pairs) -> tuple[TargetRows, TargetRows]:
    rows = identity_rows(pairs.own, len(pairs.all_rows))
    return rows, rows


def _similarity(config: GraphedConfig, materials: Materials) -> SimilaritySource:
    return open_similarity(config.graph or TargetGraph(), materials.inputs)


def towers_of(objective: nn.Module | None) -> Towers | None:
    """The towers of an objective that has captions."""
    return objective.towers if isinstance(objective, PairObjective | CLOOBObjective) else None


def scratch_text(words: Vocabulary, config: TrainConfig) -> nn.Module:
    """The tower on tokens, with fresh weights."""
    return TextTower(len(words.known) + FIRST, words.tokens, config.projector_out)


def frozen_text(width: int, config: TrainConfig) -> nn.Module:
    """The tower on a frozen text model's vectors [n, width], with fresh weights."""
    hidden, out = config.projector_hidden, config.projector_out
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out))


def _towers(config: PairsConfig, materials: Materials) -> Towers:
    train, words = materials.config, None
    texts: Callable[[Tensor], Tensor]
    if config.text == "frozen":
        lookup = EmbeddingLookup.open(materials.inputs["embeddings"] / "vectors.npy")
        text, texts = frozen_text(lookup.width, train), lookup.gather
    else:
        tokens, words = _tokens(materials.inputs["captions"])
        text, texts = scratch_text(words, train), partial(_rows_of, tokens)
    return Towers(projector(materials.features, train), text, texts, train.blockwise_from, words)


def _rows_of(table: Tensor, rows: Tensor) -> Tensor:
    """Rows of a table that stays in the CPU's memory, on the device of the row ids."""
    return table[rows.cpu()].to(rows.device)


def _tokens(captions: Path) -> tuple[Tensor, Vocabulary]:
    table = pq.read_table(captions / "captions.parquet", columns=["caption", "split"])
    texts, splits = table.column("caption").to_pylist(), table.column("split").to_pylist()
    known = vocabulary(text for text, split in zip(texts, splits, strict=True) if split == "train")
    tokens = tokenize(texts, known)
    return tokens, Vocabulary(known, tokens.shape[1])


def target_report(targets: TargetRows, positive: Tensor, candidates: int) -> dict[str, Tensor]:
    """Mean entropy of the target rows, and their mean mass on each anchor's positive column; block by block."""
    entropy = mass = torch.zeros((), device=positive.device)
    block = default_block(candidates)
    for start in range(0, len(positive), block):
        rows = targets(slice(start, min(start + block, len(positive))))
        rows = rows / rows.sum(dim=1, keepdim=True)
        entropy = entropy + torch.special.entr(rows).sum()
        mass = mass + rows.gather(1, positive[start : start + block, None]).sum()
    return {"target_entropy": entropy / len(positive), "positive_mass": mass / len(positive)}


def spread_report(first: Tensor, second: Tensor) -> dict[str, Tensor]:
    """Mean squared distance of positives, and log mean exp(-2 d^2) over pairs of anchors (arXiv 2005.10242).

    first, second: [b, d] unit rows; both are of this rank's rows only.
    """
    alignment = (first - second).square().sum(dim=1).mean()
    distances = torch.pdist(first[:SPREAD_ROWS])
    return {"alignment": alignment, "uniformity": distances.square().mul(-2).exp().mean().log()}


@torch.no_grad()
def pair_report(pairs: Pairs, targets: tuple[TargetRows, TargetRows]) -> dict[str, Tensor]:
    """What the tracker shows of pictures and captions: the targets' numbers are means of both directions."""
    directions = [target_report(each, pairs.own, len(pairs.all_rows)) for each in targets]
    means = {name: torch.stack([each[name] for each in directions]).mean() for name in directions[0]}
    temperature = torch.as_tensor(pairs.temperature, device=pairs.own.device).detach()
    return {"temperature": temperature} | means | spread_report(pairs.pictures.detach(), pairs.captions.detach())
