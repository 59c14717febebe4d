"""A small recipe and a run of it without Prefect."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from infra.cluster import Cluster, Resources
from infra.progress import Board
from infra.runs import new_record
from infra.stage import Run
from infra.tracking import Tracker, sqlite_uri
from xclr.pipeline import pipeline
from xclr.recipe import Recipe
from xclr.store import Store

EMPTY_DATABASE = "XCLR_TEST_EMPTY_DATABASE"
TINY = {
    "name": "tiny",
    "data": {"source": "emoji", "limit": 400},
    "objectives": ["simclr"],
    "graph": {"k": 4},
    "train": {
        "epochs": 2,
        "width": 4,
        "image_size": 16,
        "batch_size": 32,
        "projector_hidden": 16,
        "projector_out": 8,
        "checkpoint_every": 2,
        "log_every": 1,
    },
    "evaluate": {"suites": ["linear"], "bootstrap": 100},
}
CLUSTER = Cluster(
    name="test",
    default=Resources(executor="inline"),
    stages={"pretrain": Resources(executor="local", ranks=2, threads=1)},
)


@pytest.fixture(scope="session", autouse=True)
def _empty_database(tmp_path_factory) -> None:
    """MLflow migrates a new database for seconds; one is made here and every HOME starts with a copy."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    os.environ[EMPTY_DATABASE] = str(path)


def open_run(home: Path, mode: str = "retry", recipe: Recipe | None = None, cluster: Cluster = CLUSTER) -> Run:
    """A run whose metrics go to a database of its own."""
    recipe = recipe or Recipe.model_validate(TINY)
    state = home / "state"
    state.mkdir(parents=True, exist_ok=True)
    (home / "artifacts").mkdir(exist_ok=True)
    if not (state / "mlflow.db").exists():
        shutil.copy(os.environ[EMPTY_DATABASE], state / "mlflow.db")
    tracker = Tracker(sqlite_uri(state), recipe, state / "mlflow-artifacts", {})
    store = Store(home)
    record = new_record(recipe, (stage.digest for stage in pipeline(recipe, store)))
    return Run(record, store, cluster, mode, tracker, Board(1).__enter__())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty HOME."""
    return tmp_path / "home"
