"""Objectives as modules: features and row ids in, a loss and a report out."""

from __future__ import annotations

from functools import singledispatch

from torch import Tensor

from xclr.graph import SameCaption, SameClass, SimilaritySource, open_similarity
from xclr.objective import (
    TargetRows,
    class_targets,
    itself_and_pair,
    match_targets,
    softened_targets,
    view_targets,
    weighted_pair_targets,
    weighted_targets,
)
from xclr.recipe import (
    AUCConfig,
    CACRConfig,
    CLIPConfig,
    CLIPLiteConfig,
    CLOOBConfig,
    CWCLConfig,
    DCLConfig,
    DCLWConfig,
    GraphedConfig,
    MannWhitneyConfig,
    MoCHiConfig,
    MoCoConfig,
    ReSSLConfig,
    SigLIPConfig,
    SimCLRConfig,
    SoftCLIPConfig,
    SoftSigLIPConfig,
    SupConConfig,
    SwAVConfig,
    TargetGraph,
    TrainedConfig,
    XCLRConfig,
)
from xclr.training.model import projector
from xclr.training.objectives.local import LocalPairObjective, LocalPairs
from xclr.training.objectives.materials import Materials, Objective
from xclr.training.objectives.pairs import (
    CLOOBObjective,
    LiteObjective,
    PairObjective,
    SigmoidObjective,
    own_captions,
    smoothed,
)
from xclr.training.objectives.pairwise import (
    AUCMargin,
    PairwiseObjective,
    Prototypes,
    cacr,
    mann_whitney,
    pairwise_objective,
)
from xclr.training.objectives.queue import Mixing, QueueObjective, moco, ressl
from xclr.training.objectives.towers import TextPairs, build_towers
from xclr.training.objectives.views import Views, mixed, other_views, view_objective


@singledispatch
def build_objective(config: TrainedConfig, materials: Materials) -> Objective:
    """The trainable part of an objective on `materials.features` features."""
    raise TypeError(f"nothing is built of {type(config).__name__}: register a function for it, as below")


@build_objective.register
def _(config: SimCLRConfig, materials: Materials) -> Objective:
    return view_objective(config, materials, other_views)


@build_objective.register
def _(config: DCLConfig, materials: Materials) -> Objective:
    return view_objective(config, materials, other_views, itself_and_pair)


@build_objective.register
def _(config: DCLWConfig, materials: Materials) -> Objective:
    def targets(views: Views) -> TargetRows:
        first, second = views.candidates.chunk(2)
        return lambda part: weighted_pair_targets(first, second, views.anchors[part], sigma=config.sigma)

    return view_objective(config, materials, targets, itself_and_pair)


@build_objective.register
def _(config: SupConConfig, materials: Materials) -> Objective:
    classes = SameClass.open(materials.inputs["captions"], judged=config.classes == "judged")

    def targets(views: Views) -> TargetRows:
        assert views.keys is not None and views.all_keys is not None
        own, every = views.keys, views.all_keys.repeat(2)
        return lambda part: class_targets(own[part], every, views.anchors[part])

    return view_objective(config, materials, targets, graph=classes.keys)


@build_objective.register
def _(config: XCLRConfig, materials: Materials) -> Objective:
    source = _similarity(config, materials)

    def targets(views: Views) -> TargetRows:
        assert views.keys is not None and views.all_keys is not None
        similarity = source.between(views.keys, views.all_keys)

        def soft(part: slice) -> Tensor:
            return view_targets(similarity(part), views.anchors[part], temperature=config.target_temperature)

        return mixed(soft, other_views(views), config.mix)

    return view_objective(config, materials, targets, graph=source.keys)


@build_objective.register
def _(config: CACRConfig, materials: Materials) -> Objective:
    return pairwise_objective(materials, cacr(config))


@build_objective.register
def _(config: MannWhitneyConfig, materials: Materials) -> Objective:
    return pairwise_objective(materials, mann_whitney(config))


@build_objective.register
def _(config: AUCConfig, materials: Materials) -> Objective:
    return pairwise_objective(materials, AUCMargin(config))


@build_objective.register
def _(config: SwAVConfig, materials: Materials) -> Objective:
    head = projector(materials.features, materials.config)  # first, so that a seed gives it the weights of simclr's
    return PairwiseObjective(head, Prototypes(config, materials.config.projector_out), materials.config.blockwise_from)


@build_objective.register
def _(config: MoCoConfig, materials: Materials) -> Objective:
    return QueueObjective(config, materials, moco(config), config.stages)


@build_objective.register
def _(config: MoCHiConfig, materials: Materials) -> Objective:
    return QueueObjective(config, materials, Mixing(config, materials.steps), config.stages)


@build_objective.register
def _(config: ReSSLConfig, materials: Materials) -> Objective:
    return QueueObjective(config, materials, ressl(config))


@build_objective.register
def _(config: CLIPConfig, materials: Materials) -> Objective:
    def targets(pairs: TextPairs) -> tuple[TargetRows, TargetRows]:
        pictures, captions = own_captions(pairs)
        return smoothed(pictures, config.label_smoothing), smoothed(captions, config.label_smoothing)

    towers = build_towers(config, materials)
    drawn_to = targets if config.label_smoothing else own_captions
    if not config.local:
        return PairObjective(towers, config, drawn_to)
    assert towers.reading is not None  # frozen is refused with the recipe
    head, out = projector(materials.features, materials.config), materials.config.projector_out
    local = LocalPairs(head, out, towers.reading, config.words_left_out)
    return LocalPairObjective(towers, config, drawn_to, local)


@build_objective.register
def _(config: CWCLConfig, materials: Materials) -> Objective:
    source = _similarity(config, materials)

    def targets(pairs: TextPairs) -> tuple[TargetRows, TargetRows]:
        assert pairs.keys is not None and pairs.all_keys is not None
        similarity = source.between(pairs.keys, pairs.all_keys)
        return own_captions(pairs)[0], lambda part: weighted_targets(similarity(part))

    return PairObjective(build_towers(config, materials), config, targets, graph=source.keys)


@build_objective.register
def _(config: SoftCLIPConfig, materials: Materials) -> Objective:
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
def _(config: CLOOBConfig, materials: Materials) -> Objective:
    return CLOOBObjective(build_towers(config, materials), config)


@build_objective.register
def _(config: SigLIPConfig, materials: Materials) -> Objective:
    captions = SameCaption.open(materials.inputs["captions"])

    def targets(pairs: TextPairs) -> TargetRows:
        assert pairs.keys is not None and pairs.all_keys is not None
        return captions.between(pairs.keys, pairs.all_keys)

    return SigmoidObjective(build_towers(config, materials), config, targets, graph=captions.keys)


@build_objective.register
def _(config: SoftSigLIPConfig, materials: Materials) -> Objective:
    source = _similarity(config, materials)

    def targets(pairs: TextPairs) -> TargetRows:
        assert pairs.keys is not None and pairs.all_keys is not None
        similarity, own = source.between(pairs.keys, pairs.all_keys), pairs.own
        return lambda part: match_targets(similarity(part), own[part], temperature=config.target_temperature)

    return SigmoidObjective(build_towers(config, materials), config, targets, graph=source.keys)


@build_objective.register
def _(config: CLIPLiteConfig, materials: Materials) -> Objective:
    return LiteObjective(build_towers(config, materials), config)


def _similarity(config: GraphedConfig, materials: Materials) -> SimilaritySource:
    return open_similarity(config.graph or TargetGraph(), materials.inputs).to(materials.device)
