"""Recipes as files, and how they are run again."""

from __future__ import annotations

from xclr.recipe.load import load_recipe, recipe_names
from xclr.recipe.recipe import Recipe
from xclr.recipe.settings import OPEN
from xclr.recipe.sources import SOURCES
from xclr.recipe.yamlfile import dump_yaml


def reproduction(recipe: Recipe) -> tuple[str, str]:
    """The command that runs a recipe again, and the file it needs where it is not one of the project's own."""
    if recipe.name in recipe_names() and load_recipe(recipe.name) == recipe:
        return f"xclr run {recipe.name}", ""
    return f"xclr run {recipe.name}.yaml", recipe_yaml(recipe)


def recipe_yaml(recipe: Recipe) -> str:
    """What differs from the defaults, as a recipe file; a table, and files of graphs, are expected beside it."""
    recipe = recipe.with_graphs(lambda graph: graph.named)
    given = recipe.model_dump(mode="json", exclude_defaults=True)
    given["objectives"] = [
        {"name": each.name} | each.model_dump(mode="json", exclude_defaults=True) for each in recipe.objectives
    ]
    if recipe.data.path is not None:
        given["data"]["path"] = recipe.data.path.name
    if SOURCES[recipe.data.source].own:  # what is left open a look at the pictures would choose
        given["train"] = {name: getattr(recipe.train, name) for name in OPEN} | given.get("train", {})
    return dump_yaml({"name": recipe.name} | given)
