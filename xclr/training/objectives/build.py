"""Objectives as modules: features and row ids in, a loss and a report out."""

from __future__ import annotations

from functools import singledispatch

from torch import Tensor, nn

from xclr.graph import SameClass, SimilaritySource, open_similarity
from xclr.objective import (
    TargetRows,
    class_targets,
    itself_and_pair,
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
    ObjectiveConfig,
    SimCLRConfig,
    SoftCLIPConfig,
    SupConConfig,
    TargetGraph,
    XCLRConfig,
)
from xclr.training.objectives.materials import Materials
from xclr.training.objectives.pairs import CLOOBObjective, PairObjective, own_captions, smoothed
from xclr.training.objectives.towers import TextPairs, build_towers
from xclr.training.objectives.views import Views, other_views, view_objective


@singledispatch
def build_objective(config: ObjectiveConfig, materials: Materials) -> nn.Module | None:
    """The trainable part of an objective on `materials.features` features; None where nothing is trained."""
    return None


@build_objective.register
def _(config: SimCLRConfig, materials: Materials) -> nn.Module:
    return view_objective(config, materials, other_views)


@build_objective.register
def _(config: DCLConfig, materials: Materials) -> nn.Module:
    return view_objective(config, materials, other_views, itself_and_pair)


@build_objective.register
def _(config: DCLWConfig, materials: Materials) -> nn.Module:
    def targets(views: Views) -> TargetRows:
        first, second = views.candidates.chunk(2)
        return lambda part: weighted_pair_targets(first, second, views.anchors[part], sigma=config.sigma)

    return view_objective(config, materials, targets, itself_and_pair)


@build_objective.register
def _(config: SupConConfig, materials: Materials) -> nn.Module:
    classes = SameClass.open(materials.inputs["captions"], judged=config.classes == "judged")

    def targets(views: Views) -> TargetRows:
        assert views.keys is not None and views.all_keys is not None
        own, every = views.keys, views.all_keys.repeat(2)
        return lambda part: class_targets(own[part], every, views.anchors[part])

    return view_objective(config, materials, targets, graph=classes.keys)


@build_objective.register
def _(config: XCLRConfig, materials: Materials) -> nn.Module:
    source = _similarity(config, materials)

    def targets(views: Views) -> TargetRows:
        assert views.keys is not None and views.all_keys is not None
        similarity = source.between(views.keys, views.all_keys)
        return lambda part: view_targets(similarity(part), views.anchors[part], temperature=config.target_temperature)

    return view_objective(config, materials, targets, graph=source.keys)


@build_objective.register
def _(config: CLIPConfig, materials: Materials) -> nn.Module:
    def targets(pairs: TextPairs) -> tuple[TargetRows, TargetRows]:
        pictures, captions = own_captions(pairs)
        return smoothed(pictures, config.label_smoothing), smoothed(captions, config.label_smoothing)

    return PairObjective(build_towers(config, materials), config, targets if config.label_smoothing else own_captions)


@build_objective.register
def _(config: CWCLConfig, materials: Materials) -> nn.Module:
    source = _similarity(config, materials)

    def targets(pairs: TextPairs) -> tuple[TargetRows, TargetRows]:
        assert pairs.keys is not None and pairs.all_keys is not None
        similarity = source.between(pairs.keys, pairs.all_keys)
        return own_captions(pairs)[0], lambda part: weighted_targets(similarity(part))

    return PairObjective(build_towers(config, materials), config, targets, graph=source.keys)


@build_objective.register
def _(config: SoftCLIPConfig, materials: Materials) -> nn.Module:
    def softened(own: Tensor, every: Tensor, pairs: TextPairs) -> TargetRows:
        own, every = own.detach(), every.detach()
        return lambda part: softened_targets(
            own[part] @ every.T, pairs.own[part], temperature=pairs.temperature, mix=config.mix
        )

    def targets(pairs: TextPairs) -> tuple[TargetRows, TargetRows]:
        pictures = softened(pairs.pictures, pairs.all_pictures, pairs)
        return pictures, softened(pairs.captions, pairs.all_captions, pairs)

    return PairObjective(build_towers(config, materials), config, targets)


@build_objective.register
def _(config: CLOOBConfig, materials: Materials) -> nn.Module:
    return CLOOBObjective(build_towers(config, materials), config)


def _similarity(config: GraphedConfig, materials: Materials) -> SimilaritySource:
    return open_similarity(config.graph or TargetGraph(), materials.inputs).to(materials.device)
