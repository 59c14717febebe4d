"""Jobs of a HOME: few, one that takes long, every attempt at one."""

from __future__ import annotations

from pathlib import Path

import yaml

from infra.home.runs import read_runs
from infra.ledger import Book, Entry
from infra.processes import find_process
from tests.kit.polling import until
from tests.kit.recipes import TINY


def few_jobs(folder: Path) -> str:
    """A cluster file by which only trainings are jobs, all else is done in the run's process, and nothing a model."""
    path = folder / "few.yaml"
    stages = "default: {executor: inline}, stages: {pretrain: {executor: local, threads: 1}}"
    path.write_text(f"{{name: few, tracking: {{models: false}}, {stages}}}")
    return str(path)


def long_recipe(folder: Path) -> str:
    """A file with a recipe whose training does not end while a test looks at it."""
    path = folder / "long.yaml"
    path.write_text(yaml.safe_dump(TINY | {"name": "long", "train": TINY["train"] | {"epochs": 5000}}))
    return str(path)


def training_job(home: Path, recipe: str = "long") -> Entry:
    """The running training job of a recipe, once it is there."""
    return until(lambda: next(_training_jobs(home, recipe), None), 600)


def _training_jobs(home: Path, recipe: str):
    ours = {each.run for each in read_runs(home) if each.recipe.name == recipe}
    for entry in Book(home).read().entries:
        trains = entry.run in ours and entry.stage.startswith("pretrain simclr")
        if trains and entry.log and entry.job and find_process(entry.job):
            yield entry


def attempts(home: Path) -> set[str]:
    """Every attempt in the ledger of a HOME, by its file."""
    return {f"{path.parent.name}/{path.name}" for path in home.glob("ledger/*/*.json")}
