"""Opening an experiment: got or created, brought back where it was deleted, its files where this STATE's are."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

PLACES = (  # columns of MLflow's database that say where files are; an experiment's is the beginning of its runs'
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("experiments", "artifact_location"),
)
PATIENCE_S = 30  # for another process that writes to the database


def open_experiment(client: MlflowClient, name: str, place: str | None, say: Callable[[str], object]) -> str:
    """The id of the experiment of that name, created where there is none; one that was deleted is restored and told.

    place: the URI of its files where it is created; None leaves that to the server.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, place))
        except MlflowException:  # whoever was first has created it since
            if (found := client.get_experiment_by_name(name)) is None:
                raise
    if found.lifecycle_stage == "deleted":
        _restore(client, found.experiment_id)
        say(f"MLflow: the experiment {name} had been deleted; it is restored with its runs, and goes on")
    return str(found.experiment_id)


def _restore(client: MlflowClient, experiment: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.restore_experiment(experiment)
    except MlflowException:
        if client.get_experiment(experiment).lifecycle_stage == "deleted":  # nobody else has restored it
            raise


def bring_files_along(database: Path, files: Path) -> None:
    """Let MLflow's database name `files` wherever it names the folder of that name of the STATE it was copied from.

    It keeps whole paths, so that a STATE that was moved would show no file, and write new ones to where it was.
    """
    if not database.exists():
        return
    with closing(sqlite3.connect(database, timeout=PATIENCE_S)) as store, store:
        here, places = files.absolute().as_uri(), [each for each in PLACES if _has(store, *each)]
        for there in list(_elsewhere(store, here)) if places else ():
            for table, column in places:
                store.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"  # noqa: S608 - names of ours
                    f" WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (here, len(there) + 1, there, len(there) + 1, f"{there}/"),
                )


def _has(store: sqlite3.Connection, table: str, column: str) -> bool:
    return column in [row[1] for row in store.execute(f"PRAGMA table_info({table})")]


def _elsewhere(store: sqlite3.Connection, here: str) -> Iterator[str]:
    """Folders of another STATE that experiments name."""
    name = here.rpartition("/")[2]
    for (place,) in store.execute("SELECT DISTINCT artifact_location FROM experiments"):
        if str(place).startswith("file://") and place != here and str(place).endswith(f"/{name}"):
            yield place
