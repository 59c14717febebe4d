"""What runs trained, and where its artifacts are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flows.compare import rank
from infra.runs import RunRecord
from xclr import stages
from xclr.artifact import Artifact
from xclr.recipe import Recipe, graph_name, method_name
from xclr.stages import PretrainConfig
from xclr.store import Store

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


def trainings_of(records: Sequence[RunRecord], store: Store) -> list[Training]:
    """Every training of the runs once, in reading order; raises XclrError when their source data are gone."""
    recipes = [recipe for record in records for recipe in record.recipes]
    found = {each.checkpoint.digest: each for recipe in recipes for each in _of_recipe(recipe, store)}
    return sorted(found.values(), key=lambda each: (*rank(*each.method), each.seed))


def _of_recipe(recipe: Recipe, store: Store) -> Iterator[Training]:
    planned = stages.pipeline(recipe, store)
    configs = {stage.digest: stage.config for stage in planned if stage.kind == "pretrain"}
    for stage in planned:
        if stage.kind == "features" and stage.inputs["checkpoint"].digest in configs:
            config = configs[stage.inputs["checkpoint"].digest]
            assert isinstance(config, PretrainConfig)
            method = method_name(config.objective), graph_name(config.objective)
            inputs = {role: stage.inputs[role] for role in ("checkpoint", "captions", "images")}
            yield Training(method, config.seed, features=store.reference(stage.digest), **inputs)


def labels_of(methods: Sequence[Method]) -> dict[Method, str]:
    """A name for each method; its graph is in it where the method alone does not tell them apart."""
    times = Counter(method for method, _ in methods)
    return {each: each[0] if times[each[0]] == 1 else f"{each[0]} ({each[1]})" for each in methods}
