"""The pipeline: a recipe as a plan of stages, and the kinds that there are. The only place with its edges."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from xclr.artifact import Artifact
from xclr.captions import stages as captions_stages
from xclr.evaluation import stages as evaluation_stages
from xclr.graph import stages as graph_stages
from xclr.images import stages as images_stages
from xclr.recipe import ObjectiveConfig, Recipe
from xclr.stage import Kind, Plan
from xclr.store import Store
from xclr.training import stages as training_stages

T = TypeVar("T")


class Made(NamedTuple):
    """What was planned in a run: recipes by their text and HOME, and parts of plans by all that they depend on."""

    plans: dict[tuple[str, Path], Plan]
    parts: dict[tuple[object, ...], tuple[Plan, Any]]


_MADE: ContextVar[Made | None] = ContextVar("made", default=None)
WINGS = (captions_stages, images_stages, graph_stages, training_stages, evaluation_stages)
KINDS: Mapping[str, Kind] = {kind.name: kind for wing in WINGS for kind in wing.KINDS}


@contextmanager
def planned_once() -> Iterator[None]:
    """Within the block, which is a run, each recipe is planned once: the files it names are listed no second time."""
    token = _MADE.set(_MADE.get() or Made({}, {}))
    try:
        yield
    finally:
        _MADE.reset(token)


def pipeline(recipe: Recipe, store: Store) -> Plan:
    """Every stage of a recipe in an order in which they can run; touches nothing."""
    made = _MADE.get() or Made({}, {})
    key = recipe.model_dump_json(), store.home
    if key not in made.plans:
        made.plans[key] = _pipeline(recipe, store)
    return made.plans[key]


def _pipeline(recipe: Recipe, store: Store) -> Plan:
    plan = Plan(recipe, store)
    data, data_sets = add_sources(plan)
    for stage in training_stages.initials(recipe, store):
        plan.add(stage)
    scores = []
    for seed, objective in product(recipe.seeds, training_stages.objectives(recipe)):
        scores += add_training(plan, objective, seed, data, data_sets)
    for network in evaluation_stages.references(recipe, store):
        scores += evaluation_stages.judge(plan, network, data_sets)
    plan.add(evaluation_stages.comparison(recipe, scores))
    return plan


def add_sources(plan: Plan) -> tuple[training_stages.Data, evaluation_stages.DataSets]:
    """Add what trainings and suites read; returns where that is or will be."""

    def add(alone: Plan) -> tuple[training_stages.Data, evaluation_stages.DataSets]:
        others = add_others(alone)
        data = add_data(alone)
        return data, evaluation_stages.data_sets(alone, *(others or (data.captions, data.images)))

    return _add_once(plan, tuple(training_stages.made_graphs(plan.recipe)), add)


def add_training(
    plan: Plan, objective: ObjectiveConfig, seed: int, data: training_stages.Data, judged: evaluation_stages.DataSets
) -> list[Artifact]:
    """Add a training and what judges its network; returns where its scores are."""

    def add(alone: Plan) -> list[Artifact]:
        return evaluation_stages.judge(alone, training_stages.training(plan.recipe, objective, seed, data), judged)

    return _add_once(plan, (objective, seed), add)


def _add_once(plan: Plan, chosen: tuple[Hashable, ...], add: Callable[[Plan], T]) -> T:
    """Add what the recipe's objectives change by what was chosen alone: points of a sweep share most of their plans."""
    made = _MADE.get() or Made({}, {})
    key = plan.setting, plan.store.home, evaluation_stages.learns_captions(plan.recipe), chosen
    if key not in made.parts:
        alone = Plan(plan.recipe, plan.store)
        made.parts[key] = alone, add(alone)
    stages, found = made.parts[key]
    plan.take(stages)
    return cast(T, found)


def add_data(plan: Plan) -> training_stages.Data:
    """Add what trainings read, and the page about it; returns where that is or will be."""
    recipe, store = plan.recipe, plan.store
    captions, images = add_pictures(plan)
    embeddings = plan.add(graph_stages.embeddings(recipe, store, captions))
    graph = plan.add(graph_stages.graph(recipe, captions, embeddings))
    plan.add(graph_stages.graph_report(recipe, captions, images, embeddings, graph))
    made = {
        target: plan.add(graph_stages.made_graph(recipe, target, store, captions, embeddings))
        for target in training_stages.made_graphs(recipe)
    }
    return training_stages.Data(captions, images, embeddings, graph, made)


def other_pictures(recipe: Recipe, store: Store) -> Plan:
    """What becomes of the pictures that are judged instead of the recipe's own; no stages where these are."""
    plan, judged = Plan(recipe, store), Plan(recipe.model_copy(update={"data": recipe.judged}), store)
    if recipe.evaluate.data is not None:
        add_pictures(judged)
    for stage in judged:
        plan.add(replace(stage, name=f"{stage.name} to judge"))
    return plan


def add_others(plan: Plan) -> tuple[Artifact, Artifact] | None:
    """Add these; returns the current captions and images, None where there are none."""
    others = other_pictures(plan.recipe, plan.store)
    made = [plan.add(stage) for stage in others]
    return (made[0], made[-1]) if made else None


def add_pictures(plan: Plan) -> tuple[Artifact, Artifact]:
    """Add what becomes of the source alone: captions, and each generation of the images; returns the current ones."""
    captions = plan.add(captions_stages.captions(plan.recipe, plan.store))
    generations = [plan.add(each) for each in images_stages.images(plan.recipe, plan.store, captions)]
    return captions, generations[-1]
