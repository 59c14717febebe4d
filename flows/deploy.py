"""The build step of prefect.yaml: where the project is, and its named recipes as parameters of deployments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xclr.recipe import load_recipe, recipe_names


def describe() -> dict[str, Any]:
    """`{{ xclr.directory }}`: where workers start; `{{ xclr.recipes.NAME }}`: a recipe, checked, with its defaults."""
    recipes = {name: load_recipe(name).model_dump(mode="json") for name in recipe_names()}
    return {"directory": str(Path.cwd()), "recipes": recipes}
