"""What embeddings and graphs will cost, before anything runs."""

from __future__ import annotations

import pytest

from infra.cluster import Cluster
from infra.plan import plan
from infra.resources import Resources
from tests.kit.recipes import CLUSTER, TINY
from tests.kit.runs import data, open_run
from xclr.graph.estimate import compare_methods, comparison, embedding, expected_captions
from xclr.graph.stages import GRAPH, EmbeddingsConfig, GraphKnnConfig
from xclr.pipeline import pipeline
from xclr.recipe import Recipe, load_recipe
from xclr.recipe.sources import SOURCES
from xclr.store import Store

MINILM, MPNET = (6, 384), (12, 768)


def config(**changes):
    return GraphKnnConfig(**({"k": 32, "cutoff": 0.6, "block": 2048} | changes))


@pytest.fixture
def cc12m(tmp_path):
    table = tmp_path / "cc12m.tsv"
    table.write_text("http://host/a.jpg\ta dog\n")
    packaged = "embed.model=sentence-transformers/all-MiniLM-L6-v2"

    def loaded(*more):
        return load_recipe("cc12m", [f"data.path={table}", packaged, *more])

    return loaded


def test_the_exact_graph_grows_with_the_square_and_the_approximate_one_slower():
    for method, least, most in (("exact", 3.5, 4.3), ("approximate", 2.5, 3.5)):
        ratio = comparison(2_000_000, 384, config(method=method)).core_hours
        ratio /= comparison(1_000_000, 384, config(method=method)).core_hours
        assert least < ratio < most


def test_a_million_captions_are_compared_within_6_gib():
    """The issue's bound on planned memory: n = 1M, d = 384, k = 32."""
    assert 1 < comparison(1_000_000, 384, config()).memory_gb < 6


def test_parts_bound_the_memory_of_an_element():
    whole, cut = (comparison(12_000_000, 768, config(part=part)).memory_gb for part in (1 << 30, 1 << 20))
    assert cut < whole / 4


def test_a_larger_model_and_a_slower_precision_cost_more():
    def hours(shape, precision):
        return embedding(1_000_000, shape, EmbeddingsConfig(weights="", model="", precision=precision)).core_hours

    assert 7 < hours(MPNET, "float32") / hours(MINILM, "float32") < 9
    assert hours(MINILM, "int8") < hours(MINILM, "bfloat16") < hours(MINILM, "float32")


@pytest.mark.slow
def test_published_data_are_planned_before_they_are_there(cc12m, tmp_path):
    store = Store(tmp_path / "home")
    planned = {each.stage: each for each in plan(cc12m(), store, CLUSTER)}
    assert planned["graph"].core_hours > 1 and planned["embeddings"].core_hours > 1
    assert planned["graph"].memory_gb > 1
    assert planned["captions"].core_hours is None and planned["pretrain xclr seed 0"].memory_gb is None
    on_gpus = Cluster(name="c", stages={"embeddings": Resources(executor="local", gpus=1)})
    (there,) = [each for each in plan(cc12m(), store, on_gpus) if each.stage == "embeddings"]
    assert there.core_hours is None and there.gpu_hours > 0
    (stage,) = pipeline(cc12m(), store).of(GRAPH)
    line = compare_methods(stage, store, cc12m())
    assert f"{SOURCES['cc12m'].published:,} captions" in line and "approximate" in line and "78 elements" in line
    few = {each.stage: each for each in plan(cc12m("data.limit=1000"), store, CLUSTER)}
    assert few["graph"].core_hours < planned["graph"].core_hours / 1000


def test_captions_that_are_there_are_counted_and_a_made_graph_costs_nothing(home):
    run = open_run(home)
    data(run)
    recipe = Recipe.model_validate(TINY)
    (stage,) = pipeline(recipe, run.store).of(GRAPH)
    distinct = run.store.manifest(run.store.find(stage.inputs["captions"].digest)).stats["distinct"]
    assert expected_captions(stage, run.store, recipe.data) == distinct
    planned = {each.stage: each for each in plan(recipe, run.store, CLUSTER)}
    assert planned["graph"].state == "miss" and 0 < planned["graph"].core_hours < 0.1
    assert compare_methods(stage, Store(home / "none"), recipe) is None  # nobody knows how many captions there are
