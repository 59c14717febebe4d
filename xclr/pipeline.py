"""The pipeline: a recipe as a plan of stages, and the kinds that there are. The only place with its edges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from xclr.artifact import Artifact
from xclr.captions import stages as captions_stages
from xclr.evaluation import stages as evaluation_stages
from xclr.graph import stages as graph_stages
from xclr.images import stages as images_stages
from xclr.recipe import Recipe
from xclr.stage import Kind, Plan
from xclr.store import Store
from xclr.training import stages as training_stages


class Made(NamedTuple):
    """What was planned in a run: recipes by their text and HOME, and what judges a network, with where its scores are.

    The latter by all that it depends on: most points of a sweep leave most networks as they are.
    """

    plans: dict[tuple[str, Path], Plan]
    judged: dict[tuple[object, ...], tuple[Plan, list[Artifact]]]


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
    others = add_others(plan)
    data = add_data(plan)
    data_sets = evaluation_stages.data_sets(plan, *(others or (data.captions, data.images)))
    for stage in training_stages.initials(recipe, store):
        plan.add(stage)
    scores = []
    for network in (*training_stages.trainings(recipe, data), *evaluation_stages.references(recipe, store)):
        scores += add_suites(plan, network, data_sets)
    plan.add(evaluation_stages.comparison(recipe, scores))
    return plan


def add_suites(plan: Plan, network: training_stages.JudgedNetwork, data: evaluation_stages.DataSets) -> list[Artifact]:
    """Add a network and what judges it; returns where its scores are. Most points of a sweep share most of these."""
    made = _MADE.get() or Made({}, {})
    suites = tuple(evaluation_stages.suites(plan.recipe))
    key = plan.setting, suites, plan.store.home, network.title, type(network.objective), network.stage.digest
    if key not in made.judged:
        alone = Plan(plan.recipe, plan.store)
        made.judged[key] = alone, evaluation_stages.judge(alone, network, data)
    stages, scores = made.judged[key]
    plan.take(stages)
    return scores


def add_data(plan: Plan) -> training_stages.Data:
    """Add what trainings read, and the page about it; returns where that is or will be."""
    recipe, store = plan.recipe, plan.store
    captions, images = add_pictures(plan)
    embeddings = plan.add(graph_stages.embeddings(recipe, store, captions))
    graph = plan.add(graph_stages.graph(recipe, captions, embeddings))
    plan.add(graph_stages.graph_report(recipe, captions, images, embeddings, graph))
    class_graphs = {
        target: plan.add(graph_stages.class_graph(recipe, target, store, captions, embeddings))
        for target in training_stages.class_graphs(recipe)
    }
    return training_stages.Data(captions, images, embeddings, graph, class_graphs)


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
