"""A recipe as it will be run: resolved once, the same wherever it is asked."""

import json

import pytest
import yaml
from PIL import Image

import xclr
from tests.kit.command import run_xclr, succeeds
from tests.kit.pictures import encode
from xclr.artifact import sha256_file
from xclr.errors import RecipeError, StoreError
from xclr.pipeline import pipeline
from xclr.recipe import Recipe, TrainConfig, load_recipe, recipe_names, with_overrides
from xclr.resolved import resolve
from xclr.store import Store
from xclr.sweep.layout import layout
from xclr.sweep.spec import Sweep, points
from xclr.training.stages import CHECKPOINT, INITIAL


def recipe_at(folder, side, **keys):
    """A recipe of its own pictures, of that side, as a person writes one."""
    for kind in ("cat", "dog"):
        (folder / "own" / kind).mkdir(parents=True)
        for index in range(4):
            picture = Image.new("RGB", (side, side), (40 * index, 90, 20))
            (folder / "own" / kind / f"{index}.png").write_bytes(encode(picture))
    raw = {"data": {"source": "folder", "path": "own"}, "objectives": ["simclr"], "graph": {"k": 1}} | keys
    (folder / "mine.yaml").write_text(yaml.safe_dump(raw))
    return str(folder / "mine.yaml")


def settings(recipe):
    return recipe.train.image_size, recipe.train.views, recipe.train.backbone


PHOTOGRAPHS, DRAWINGS = (128, "simclr", "resnet18"), (32, "stickers", "resnet-mini")


def test_photographs_and_drawings_are_trained_as_such(tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "small").mkdir()
    large = resolve(load_recipe(recipe_at(tmp_path / "large", 200)), tmp_path)
    assert settings(large.recipe) == PHOTOGRAPHS and "8 pictures, median 200 x 200: train.image_size 128" in large.line
    source = load_recipe(recipe_at(tmp_path / "small", 64))
    small = resolve(source, tmp_path)
    assert settings(small.recipe) == DRAWINGS and small.line is None and small.recipe == source


def test_named_recipes_keep_what_they_say(tmp_path):
    for name in recipe_names():
        recipe = load_recipe(name)
        assert resolve(recipe, tmp_path) == (recipe, None)


def test_a_resolved_recipe_is_resolved_whatever_becomes_of_it_and_its_pictures(tmp_path):
    source = load_recipe(recipe_at(tmp_path, 200))
    found = resolve(source, tmp_path).recipe
    for path in (tmp_path / "own").rglob("*.png"):
        path.write_bytes(encode(Image.new("RGB", (32, 32))))
    assert resolve(found, tmp_path) == (found, None)
    stored = Recipe.model_validate_json(found.model_dump_json())
    assert resolve(stored, tmp_path) == (stored, None) and stored == found


def test_overrides_stand_before_and_after(tmp_path):
    path = recipe_at(tmp_path, 200)
    before = resolve(load_recipe(path, ["train.image_size=96"]), tmp_path).recipe
    between = resolve(with_overrides(load_recipe(path), ["train.image_size=96", "seeds=[3]"]), tmp_path).recipe
    after = with_overrides(resolve(load_recipe(path), tmp_path).recipe, ["train.image_size=96"])
    assert settings(before) == settings(between) == settings(after) == (96, "simclr", "resnet18")


def test_the_points_of_a_sweep_are_trained_as_its_recipe_is(tmp_path):
    recipe = resolve(load_recipe(recipe_at(tmp_path, 200)), tmp_path).recipe
    sweep = Sweep(name="a", recipe=recipe, grid={"train.learning_rate": (0.1, 0.2)})
    assert {settings(each.recipe) for each in points(sweep)} == {PHOTOGRAPHS}
    again = Sweep.model_validate_json(sweep.model_dump_json())
    assert [each.stages for each in layout(again, Store(tmp_path)).cells] == [
        each.stages for each in layout(sweep, Store(tmp_path)).cells
    ]


@pytest.mark.slow
def test_plan_says_what_was_chosen_and_plans_it(tmp_path):
    path = recipe_at(tmp_path, 200)
    done = succeeds(run_xclr("plan", path, "--json", "--home", str(tmp_path / "home"), cwd=tmp_path))
    assert "train.backbone resnet18; change with --set train.image_size=..." in done.stderr
    recipe = resolve(load_recipe(path), tmp_path).recipe
    digests = {str(stage.digest) for stage in pipeline(recipe, Store(tmp_path / "home"))}
    assert {each["digest"] for each in json.loads(done.stdout)} == digests


def test_a_training_may_start_from_a_network_of_a_run(own_home):
    network = xclr.open(own_home).network("xclr", 1)
    found = [
        resolve(Recipe(name="a", train=TrainConfig(init=init)), own_home).recipe
        for init in ("run:own/xclr/1", f"run:{network.checkpoint.path}")
    ]
    assert [each.train.init for each in found] == [str(network.checkpoint.path)] * 2
    small = found[0].train.model_copy(update={"width": 4, "image_size": 16})
    (stage,) = pipeline(found[0].model_copy(update={"train": small}), Store(own_home)).of(INITIAL)
    assert stage.config.sha256 == sha256_file(network.checkpoint.path / CHECKPOINT)
    with pytest.raises(StoreError, match="networks of 3 methods"):
        resolve(Recipe(name="a", train=TrainConfig(init="run:own")), own_home)


def test_a_run_to_start_from_is_told_when_it_is_not_there(tmp_path):
    for init, error in (("run:nobody", StoreError), ("run:nobody/xclr/first", RecipeError)):
        with pytest.raises(error):
            resolve(Recipe(name="a", train=TrainConfig(init=init)), tmp_path)
