"""A tracking store of MLflow: its client, its experiments, and where the files of its runs go."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from logging import getLogger
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock

from infra.tracking.described import SEEDS, NewRun, distinct
from infra.tracking.environment import HASTY, QUIET
from infra.tracking.experiment import bring_files_along, open_experiment
from infra.tracking.files import Upload, joined_tables, tables_of
from infra.tracking.links import DATABASE, sqlite_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

LOCK = "tracking.lock"  # in STATE: one thread of one process writes at a time; together they break MLflow's unique keys
PROXIED = "mlflow-artifacts"  # scheme of files that go through the server
TABLES = "mlflow.loggedArtifacts"  # tag of the files that MLflow's pages show as tables, others are text to them
MOST_RUNS = 10_000  # of an experiment that are asked for


class Connection:
    """A store by its address, and the folder of this STATE for files that go through no server."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        for name, value in {**QUIET, **HASTY}.items():
            os.environ.setdefault(name, value)
        import_module("mlflow")  # sets logging up: in a thread of the run, it and Prefect might wait for each other
        self.uri, self.artifacts = uri, artifacts
        artifacts.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(artifacts.parent / LOCK)
        self.say: Callable[[str], object] = getLogger("xclr").warning
        self._known: MlflowClient | None = None

    @property
    def client(self) -> MlflowClient:
        """MLflow's own; the first use lets a STATE that was moved find its files."""
        if self._known is None:
            from mlflow import MlflowClient

            with self.lock:
                if self.uri == sqlite_uri(self.artifacts.parent):
                    bring_files_along(self.artifacts.parent / DATABASE, self.artifacts)
                self._known = MlflowClient(self.uri)
        return self._known

    def forget(self) -> None:
        """Ask anew: MLflow may have come back as another."""
        self._known = None

    def experiment(self, name: str, tags: Mapping[str, str] | None = None) -> str:
        """The id of the experiment of that name, which is there then and has the tags."""
        where = None if self.uri.startswith("http") else self.artifacts.absolute().as_uri()
        with self.lock:
            found = open_experiment(self.client, name, where, self.say)
            known = self.client.get_experiment(found).tags if tags else {}
            for key, value in (tags or {}).items():
                if known.get(key) != value:
                    self.client.set_experiment_tag(found, key, value)
        return found

    def runs(self, experiment: str, where: str = "") -> list[MlflowRun]:
        """The runs of an experiment, of those that fit."""
        return list(self.client.search_runs([experiment], where, max_results=MOST_RUNS))

    def runs_of(self, name: str) -> list[MlflowRun]:
        """The runs of the experiment of that name, none where it is not there."""
        found = self.client.get_experiment_by_name(name)
        return self.runs(found.experiment_id) if found is not None and found.lifecycle_stage == "active" else []

    def create(self, experiment: str, new: NewRun, tags: Mapping[str, str]) -> MlflowRun:
        """A run that is new; one of several networks' sort gets a name that no other of its sort has."""
        if SEEDS in new.tags:
            new = distinct(new, self._namesakes(experiment, new))
        told = {**tags, **new.tags}
        run = self.client.create_run(experiment, new.began_ms, tags=told, run_name=new.name)
        self.describe(run, new)
        return run

    def describe(self, run: MlflowRun, new: NewRun) -> None:
        """Log what a run was given; what is there already is the same, and changes nothing."""
        from mlflow.entities import Param

        self.client.log_batch(run.info.run_id, params=[Param(each, value) for each, value in new.params.items()])
        if new.inputs:
            self.client.log_inputs(run.info.run_id, list(new.inputs))

    def _namesakes(self, experiment: str, new: NewRun) -> list[MlflowRun]:
        """The runs of the same sort whose names begin as a new one's."""
        pattern = new.name.replace("'", "_") + "%"
        found = self.runs(experiment, f"attributes.run_name LIKE '{pattern}'")
        return [each for each in found if each.data.tags.get("stage") == new.tags.get("stage")]

    def set_tags(self, run: MlflowRun, tags: Mapping[str, str]) -> None:
        """Give a run the tags that it does not have."""
        for key, value in tags.items():
            if run.data.tags.get(key) != value:
                self.client.set_tag(run.info.run_id, key, value)

    def upload(self, run: MlflowRun, uploads: Sequence[Upload]) -> None:
        """Log files, and list those that are tables."""
        for each in uploads:
            self.files_at(run.info.artifact_uri).log_artifact(str(each.path), each.folder)
        if tables := tables_of(uploads):
            before = self.client.get_run(run.info.run_id).data.tags.get(TABLES, "")
            self.client.set_tag(run.info.run_id, TABLES, joined_tables(before, tables))

    def write(self, run: MlflowRun, files: Mapping[str, bytes]) -> None:
        """Log what is no file yet, by name."""
        with TemporaryDirectory() as folder:
            for name, content in files.items():
                Path(folder, name).write_bytes(content)
                self.files_at(run.info.artifact_uri).log_artifact(str(Path(folder, name)))

    def files_at(self, location: str) -> ArtifactRepository:
        """Where files go: what a server of this STATE began goes on without it, in the same folder."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        place = urlsplit(location)
        if place.scheme == PROXIED and not self.uri.startswith("http"):
            return get_artifact_repository((self.artifacts.absolute() / place.path.lstrip("/")).as_uri())
        return get_artifact_repository(location, tracking_uri=self.uri)
