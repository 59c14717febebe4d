"""Sweeps: which points and cells there are, what they share, what is refused."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.recipes import TINY
from xclr.errors import RecipeError
from xclr.pipeline import pipeline
from xclr.recipe import Recipe, load_recipe
from xclr.store import Store
from xclr.sweep.layout import layout
from xclr.sweep.load import is_sweep, load_sweep, parse_draw, parse_values, sweep_names
from xclr.sweep.spec import Draw, Sweep, points, spelled

RECIPE = Recipe.model_validate(TINY | {"objectives": ["simclr", "xclr"], "seeds": [0, 1, 2]})
TAU = "objective.target_temperature"


def swept(**keys: object) -> Sweep:
    return Sweep.model_validate({"name": "s", "recipe": RECIPE} | keys)


def test_a_grid_is_every_combination_and_lists_go_together():
    grid = swept(
        grid={TAU: [0.1, 0.2], "train.epochs": [1, 2, 3]}, lists={"train.width": [4, 8], "train.batch_size": [16, 32]}
    )
    found = points(grid)
    assert len(found) == 2 * 3 * 2
    assert {(p.recipe.train.width, p.recipe.train.batch_size) for p in found} == {(4, 16), (8, 32)}
    assert {(p.recipe.objectives[1].target_temperature, p.recipe.train.epochs) for p in found} == {
        (tau, epochs) for tau in (0.1, 0.2) for epochs in (1, 2, 3)
    }
    assert spelled(found[0].values) == "target_temperature=0.1 epochs=1 width=4 batch_size=16"


def test_random_search_draws_the_same_first_samples_however_many_there_are():
    random = {"train.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "train.epochs": [1, 2, 5]}
    few = points(swept(random=random, samples=3))
    many = points(swept(random=random | {TAU: [0.1, 0.2]}, samples=6))
    assert [p.recipe.train for p in few] == [p.recipe.train for p in many[:3]]
    assert len({p.recipe.train.learning_rate for p in many}) == 6
    other = points(swept(random=random, samples=3, draw=1))
    assert [p.values for p in other] != [p.values for p in few]


@given(low=st.floats(1e-6, 1), high=st.floats(2, 100), log=st.booleans(), seed=st.integers(0, 99))
def test_drawn_numbers_lie_in_their_range_and_can_be_typed(low, high, log, seed):
    from random import Random

    drawn = Draw(low=low, high=high, log=log).draw(Random(seed))
    assert low * 0.99 <= drawn <= high * 1.01 and float(f"{drawn:.3g}") == drawn


def test_what_an_axis_does_not_change_is_one_cell_for_all_its_values(tmp_path):
    laid = layout(swept(grid={TAU: [0.05, 0.1]}), Store(tmp_path))
    titles = [cell.title for cell in laid.cells]
    assert titles == [
        *(f"{what} seed {seed}" for seed in range(3) for what in ("simclr", "xclr target_temperature=0.05")),
        *(f"xclr target_temperature=0.1 seed {seed}" for seed in range(3)),
    ]
    assert laid.cells[0].values == {} and laid.cells[-1].values == {TAU: 0.1}
    assert {name: len(level) for name, level in laid.levels.items()} == {
        "captions": 1, "images": 1, "embeddings": 1, "graph": 1, "graph report": 1, "pretrain": 9, "features": 9,
        "suite linear": 9,
    }  # fmt: skip
    assert laid.before("suite linear") == ["captions", "pretrain", "features"]
    assert "pretrain" in laid.before("features") and laid.shared[-1] == "graph report"


@pytest.mark.parametrize("recipe", ["emoji", "smoke", "ablation"])
@pytest.mark.slow
def test_no_level_waits_for_what_no_level_before_it_makes(recipe, tmp_path):
    sweep = Sweep(name="s", recipe=load_recipe(recipe), grid={TAU: (0.05, 0.1)})
    made: set[str] = set()
    for level in layout(sweep, Store(tmp_path)).levels.values():
        assert {each.digest for stage in level for each in stage.inputs.values()} <= made
        made |= {stage.digest for stage in level}


def test_cells_are_the_stages_that_a_run_of_the_recipe_has(tmp_path):
    store = Store(tmp_path)
    laid = layout(swept(grid={TAU: [0.05, 0.1], "train.epochs": [2]}), store)
    recipe = points(laid.sweep)[1].recipe
    planned = {stage.digest: stage.name for stage in pipeline(recipe, store)}
    shared = [stage for stage in laid.stages if stage.digest in planned]
    assert len(shared) == len(laid.stages) - 3 * 3  # what the other temperature has of its own
    assert not any("random" in stage.name for stage in laid.stages)


def test_sweeps_that_share_cells_share_their_stages(tmp_path):
    one = layout(swept(name="one", grid={TAU: [0.05, 0.1]}), Store(tmp_path))
    other = layout(swept(name="other", grid={"graph.source": ["captions", "augmentation"]}), Store(tmp_path))
    both = {each.digest for each in one.stages} & {each.digest for each in other.stages}
    assert sum(cell.training.digest in both for cell in one.cells) == 6  # simclr, and xclr as the recipe has it


def test_more_values_keep_the_cells_that_were_there(tmp_path):
    few = layout(swept(grid={TAU: [0.05, 0.1]}), Store(tmp_path))
    more = layout(swept(grid={TAU: [0.02, 0.05, 0.1]}), Store(tmp_path))
    assert {cell.training.digest for cell in few.cells} < {cell.training.digest for cell in more.cells}


def test_objectives_that_a_point_makes_equal_are_one(tmp_path):
    recipe = RECIPE.model_copy(update={"seeds": (0,)})
    raw = recipe.model_dump(mode="json")
    raw["objectives"] = ["xclr", {"name": "xclr", "graph": {"source": "random_class"}}]
    both = Sweep(name="s", recipe=Recipe.model_validate(raw), grid={"graph.source": ("captions", "random_class")})
    assert len(layout(both, Store(tmp_path)).cells) == 2


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({}, "nothing varies"),
        ({"grid": {"seeds": [1]}}, "use --seeds"),
        ({"grid": {TAU: []}}, "has no values"),
        ({"grid": {TAU: [0.1]}, "lists": {TAU: [0.2]}}, "stands in two"),
        ({"lists": {TAU: [0.1], "train.epochs": [1, 2]}}, "equally long"),
        ({"grid": {TAU: [0.1]}, "by": "knn"}, "knn is not among the suites linear"),
        ({"random": {TAU: {"low": 2, "high": 1}}}, "no range"),
        ({"grid": {TAU: [0.1]}, "name": "../x"}, "pattern"),
    ],
)
def test_what_is_no_sweep_is_refused(keys, part):
    with pytest.raises(ValueError, match=part):
        swept(**keys)


def test_a_point_that_cannot_be_is_named_before_anything_runs(tmp_path):
    with pytest.raises(RecipeError, match=r"target_temperature=-1: .*target_temperature.*greater than 0"):
        layout(swept(grid={TAU: [0.1, -1]}), Store(tmp_path))
    with pytest.raises(RecipeError, match=r"^epoch=1: .*unknown key 'train.epoch' \(did you mean epochs"):
        layout(swept(grid={"train.epoch": [1]}), Store(tmp_path))
    with pytest.raises(RecipeError, match=r"no network depends on objective\.sigma"):
        layout(swept(grid={"objective.sigma": [0.1, 0.2]}), Store(tmp_path))


@pytest.mark.slow
def test_named_sweeps_load_and_their_points_can_be_planned(tmp_path):
    assert {"temperature", "graph", "data-size"} <= set(sweep_names())
    cells = {name: len(layout(load_sweep(name, {}), Store(tmp_path)).cells) for name in sweep_names()}
    assert cells["temperature"] == 18 and cells["graph"] == 24 and cells["data-size"] == 36
    assert all(is_sweep(name) for name in cells) and not is_sweep("emoji")


def test_what_is_given_stands_before_what_a_sweep_says():
    found = load_sweep("temperature", {"seeds": range(2), "grid": {TAU: (0.3,)}}, ["train.epochs=1"])
    assert (found.name, found.recipe.seeds, found.recipe.train.epochs) == ("temperature", (0, 1), 1)
    assert found.grid == {TAU: (0.3,)} and found.by == "imagenet"
    plain = load_sweep("emoji", {"grid": dict([parse_values("--grid", f"{TAU}=0.1,0.2")])})
    assert plain.name == "emoji-target_temperature" and plain.recipe == load_recipe("emoji")


def test_a_name_that_is_nearly_right_is_told():
    with pytest.raises(RecipeError, match="did you mean temperature"):
        load_sweep("temprature", {})
    with pytest.raises(RecipeError, match="no recipe 'nothing-like-it'"):
        load_sweep("nothing-like-it", {})


def test_a_sweep_of_ones_own_finds_the_recipe_beside_it(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"name": "mine", "data": {"source": "emoji"}}))
    (tmp_path / "wide.yaml").write_text(yaml.safe_dump({"recipe": "mine.yaml", "grid": {"train.width": [8, 16]}}))
    found = load_sweep(str(tmp_path / "wide.yaml"), {})
    assert (found.name, found.recipe.name) == ("wide", "mine")
    assert Sweep.model_validate(json.loads(found.model_dump_json())) == found


def test_values_and_ranges_are_read_as_they_are_typed():
    assert parse_values("--grid", "graph.source=captions,wordnet") == ("graph.source", ("captions", "wordnet"))
    assert parse_values("--grid", "objectives=[simclr],[simclr, xclr]")[1] == (["simclr"], ["simclr", "xclr"])
    assert parse_draw("a=log:0.001..0.1") == ("a", Draw(low=0.001, high=0.1, log=True))
    assert parse_draw("a=whole:1..8") == ("a", Draw(low=1, high=8, whole=True))
    assert parse_draw("a=x,y") == ("a", ("x", "y"))
    for text in ("a", "a=", "=1"):
        with pytest.raises(RecipeError, match="no values"):
            parse_values("--grid", text)
    for text in ("a=lag:1..2", "a=1..x", "a=2..1"):
        with pytest.raises(RecipeError, match="no range"):
            parse_draw(text)


def test_a_network_whose_graph_no_value_tells_bears_it_in_its_name(tmp_path):
    """One that has a graph of its own, which the axis of the recipe's graph does not change."""
    shuffled = {"name": "xclr", "graph": {"source": "random_class"}}
    recipe = Recipe.model_validate(TINY | {"objectives": ["xclr", shuffled]})
    graphs = swept(recipe=recipe, grid={"graph.source": ["captions", "class"]})
    assert {cell.title for cell in layout(graphs, Store(tmp_path)).cells if cell.seed == 0} == {
        "xclr graph.source=captions seed 0", "xclr graph.source=class seed 0", "xclr (random_concept) seed 0",
    }  # fmt: skip


def test_a_baseline_has_no_values_of_fields_that_it_lacks_though_one_point_alone_holds_it(tmp_path):
    pairs = swept(lists={TAU: [0.05, 0.1], "train.epochs": [1, 2]})
    found = {cell.title for cell in layout(pairs, Store(tmp_path)).cells if cell.seed == 0}
    assert found == {
        "simclr epochs=1 seed 0",
        "xclr target_temperature=0.05 epochs=1 seed 0",
        "simclr epochs=2 seed 0",
        "xclr target_temperature=0.1 epochs=2 seed 0",
    }
