"""What MLflow holds of a HOME."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from infra.tracking.links import sqlite_uri
from xclr.training.spool import read_spool

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Points = dict[str, list[tuple[int, float]]]  # step and value, as often as they are there


def tracked(home: Path, recipe: str, uri: str | None = None) -> tuple[MlflowClient, dict[str, Run]]:
    """A recipe's runs and its data's by digest, or by their stage; from the database, or from a server."""
    from mlflow import MlflowClient  # heavy

    client = MlflowClient(uri or sqlite_uri(home / "state"))
    experiments = filter(None, map(client.get_experiment_by_name, (recipe, f"{recipe} data")))
    found = [run for each in experiments for run in client.search_runs([each.experiment_id])]
    runs = {each.data.tags.get("digest") or each.data.tags.get("stage", ""): each for each in found}
    assert len(runs) == len(found), "a run is there twice"
    return client, runs


def states(home: Path, recipe: str) -> dict[str, str]:
    """How these runs stand."""
    return {key: run.info.status for key, run in tracked(home, recipe)[1].items()}


def points(client: MlflowClient, run: str, names: Iterable[str]) -> Points:
    """Every point of a run's curves."""
    return {name: [(each.step, each.value) for each in client.get_metric_history(run, name)] for name in names}


def spooled(path: Path) -> Points:
    """What a spool holds."""
    found: Points = {}
    for point in read_spool(path):
        for name, value in point.metrics.items():
            found.setdefault(name, []).append((point.step, value))
    return found
