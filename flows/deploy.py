"""The build step of prefect.yaml: where the project is, its recipes and sweeps as parameters of deployments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xclr.recipe import load_recipe, recipe_names
from xclr.sweep.load import load_sweep, sweep_names


def describe() -> dict[str, Any]:
    """`{{ xclr.directory }}`: where workers start; `{{ xclr.recipes.NAME }}`: a recipe, checked, with its defaults.

    `{{ xclr.sweeps.NAME }}`: a sweep.
    """
    recipes = {name: load_recipe(name).model_dump(mode="json") for name in recipe_names()}
    sweeps = {name: load_sweep(name, {}).model_dump(mode="json") for name in sweep_names()}
    return {"directory": str(Path.cwd()), "recipes": recipes, "sweeps": sweeps}
