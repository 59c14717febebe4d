"""Databases of Prefect and MLflow that are migrated already, which takes each many seconds; made once a session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from infra.servers import prefect_environment

FOLDER = "XCLR_TEST_DATABASES"  # names the session's folder to its workers, and to processes that tests start


def give_databases(home: Path) -> Path:
    """Put both into a HOME that has none, and return it."""
    for name in MIGRATIONS:
        give_database(home / "state", name)
    return home


def give_database(state: Path, name: str = "mlflow.db") -> None:
    """Put one into a STATE that has none."""
    path = state / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_migrated(name), path)


def _migrated(name: str) -> Path:
    folder = Path(os.environ[FOLDER])
    made = folder / Path(name).name
    with FileLock(f"{made}.lock"):
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=folder) as state:
                MIGRATIONS[name](Path(state))
                (Path(state) / name).rename(made)
    return made


def _migrate_prefect(state: Path) -> None:
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
    done = subprocess.run(command, env={**os.environ, **prefect_environment(state)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _migrate_mlflow(state: Path) -> None:
    from mlflow import MlflowClient  # heavy

    MlflowClient(f"sqlite:///{state}/mlflow.db").search_experiments()


MIGRATIONS: dict[str, Callable[[Path], None]] = {"prefect/prefect.db": _migrate_prefect, "mlflow.db": _migrate_mlflow}
