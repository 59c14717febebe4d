"""Runs without Prefect, in HOMEs that begin with a migrated database and, where asked, with the tiny recipe's data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from infra.cluster import Cluster
from infra.home.runs import new_record
from infra.mode import Mode
from infra.progress import Board
from infra.run import Run
from infra.stage import ensure
from infra.tracking.links import sqlite_uri
from infra.tracking.patient import UNTRACKED, PatientTracker
from infra.tracking.tracker import Tracker
from tests.kit.databases import FOLDER, give_database
from tests.kit.finished import begin
from tests.kit.recipes import CLUSTER, TINY
from xclr.artifact import Artifact
from xclr.pipeline import pipeline
from xclr.recipe import Recipe
from xclr.stage import Stage
from xclr.store import Store


def open_run(
    home: Path, mode: Mode = "retry", recipe: Recipe | None = None, cluster: Cluster = CLUSTER, uri: str | None = None
) -> Run:
    """A run whose metrics go to a database of its own, or to a server of it."""
    recipe = recipe or Recipe.model_validate(TINY)
    state = home / "state"
    state.mkdir(parents=True, exist_ok=True)
    (home / "artifacts").mkdir(exist_ok=True)
    give_database(state)
    tracker = Tracker(uri or sqlite_uri(state), recipe, state / "mlflow-artifacts", {}, cluster.tracking)
    store = Store(home)
    record = new_record(recipe, (stage.digest for stage in pipeline(recipe, store)))
    board = Board(1).__enter__()
    return Run(record, store, cluster, mode, PatientTracker(tracker, board.say, state / UNTRACKED / record.run), board)


def begin_with_data(home: Path) -> None:
    """Give an empty HOME the captions and pictures of the tiny recipe, which are made once a session."""
    _copy("tiny", _make_data, home)


def begin_with_graph(home: Path) -> Path:
    """The same, and its graph, with unit vectors in place of a text model's, whose start takes long; returns `home`."""
    _copy("graph", _make_graph, home)
    return home


def _copy(name: str, make: Callable[[Path], None], home: Path) -> None:
    made = Path(os.environ[FOLDER]) / name
    with FileLock(f"{made}.lock"):
        if not made.exists():
            make(made)
    shutil.copytree(made, home, ignore=shutil.ignore_patterns("runs", "code"))


def _make_data(home: Path) -> None:
    run = open_run(home)
    data(run)
    run.close("completed")


def _make_graph(home: Path) -> None:
    begin_with_data(home)
    begin(home, Recipe.model_validate(TINY))


def data(run: Run) -> dict[str, Artifact]:
    """Captions and pictures, found or made."""
    return {name: ensure(run, planned(run.recipe, run.store)[name]) for name in ("captions", "images")}


def pretrained(run: Run) -> Artifact:
    """The checkpoint of the recipe's first objective, found or made with the data before it."""
    data(run)
    return ensure(run, training_of(run.recipe, run.store))


def training_of(recipe: Recipe, store: Store) -> Stage:
    """The training of the recipe's first objective."""
    (objective, *_) = recipe.objectives
    return planned(recipe, store)[f"pretrain {objective.name} seed 0"]


def planned(recipe: Recipe, store: Store) -> dict[str, Stage]:
    """The stages of a recipe by name."""
    return {stage.name: stage for stage in pipeline(recipe, store)}
