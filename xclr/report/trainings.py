"""What runs trained, and where its artifacts are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from xclr.artifact import Artifact
from xclr.evaluation.stages import FEATURES
from xclr.pipeline import pipeline
from xclr.recipe import Recipe, graph_name, method_name
from xclr.report.tables import rank
from xclr.stage import network_name
from xclr.store import Store
from xclr.training.stages import PRETRAIN

Method = tuple[str, str]  # method, graph


@dataclass(frozen=True)
class Training:
    """One backbone and the artifacts that belong to it, which need not be there any more."""

    method: Method
    seed: int
    checkpoint: Artifact
    features: Artifact
    captions: Artifact
    images: Artifact


def trainings_of(recipes: Iterable[Recipe], store: Store) -> list[Training]:
    """Every training of the recipes once, in reading order; raises XclrError when their source data are gone."""
    found = {each.checkpoint.digest: each for recipe in recipes for each in _of_recipe(recipe, store)}
    return sorted(found.values(), key=lambda each: (*rank(*each.method), each.seed))


def _of_recipe(recipe: Recipe, store: Store) -> Iterator[Training]:
    plan = pipeline(recipe, store)
    trained = {stage.digest: stage for stage in plan.of(PRETRAIN)}
    for stage in plan.of(FEATURES):
        if training := trained.get(stage.inputs["checkpoint"].digest):
            method = (
                method_name(training.config.objective),
                graph_name(training.config.objective, training.config.dataset),
            )
            yield Training(method, training.config.seed, features=store.reference(stage.digest), **stage.inputs)


def labels_of(methods: Sequence[Method]) -> dict[Method, str]:
    """A name for each method."""
    return {each: network_name(*each) for each in methods}
