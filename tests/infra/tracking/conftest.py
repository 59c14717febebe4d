"""A run over own pictures whose MLflow was away, and was told of it afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from infra.catch_up import catch_up
from infra.home.ends import untold
from infra.home.runs import RunRecord, read_runs, write_record
from infra.tracking.links import sqlite_uri
from infra.tracking.patient import UNTRACKED
from tests.kit.databases import give_database
from xclr.opened import Opened

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

LIMIT_MB = 0.02  # between the sizes of the run's files


class Tracked(NamedTuple):
    """A HOME, its run, and what MLflow was told of it."""

    home: Path
    record: RunRecord

    @property
    def uri(self) -> str:
        """Of MLflow's database."""
        return sqlite_uri(self.home / "state")

    @property
    def opened(self) -> Opened:
        """The run as Python has it."""
        return Opened(self.home, self.record)

    @property
    def client(self) -> MlflowClient:
        """MLflow."""
        from mlflow import MlflowClient  # heavy

        return MlflowClient(self.uri)

    def runs(self) -> dict[str, MlflowRun]:
        """MLflow's runs by the digest of their network; the data's by none."""
        experiments = [each.experiment_id for each in self.client.search_experiments()]
        return {each.data.tags.get("digest", ""): each for each in self.client.search_runs(experiments)}

    def catch_up(self) -> None:
        """Tell MLflow all that it does not know."""
        mark = self.home / "state" / UNTRACKED / self.record.run
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
        state = self.home / "state"
        (told,) = catch_up(self.home, self.uri, state / "mlflow-artifacts", untold(self.home, state))
        assert not told.fault
        assert not mark.exists()


@pytest.fixture(scope="session")
def tracked(own_home, tmp_path_factory) -> Tracked:
    """A copy of the run of two seeds over own pictures, with a page; small files are copied, others named."""
    folder = tmp_path_factory.mktemp("tracked")
    home = shutil.copytree(own_home, folder / "home", ignore=shutil.ignore_patterns("pages", "state"))
    (home / "state").mkdir()
    give_database(home / "state")
    (folder / "own.yaml").write_text(f"tracking: {{copy_up_to_mb: {LIMIT_MB}}}\n")
    (home / "pages").mkdir()
    (home / "pages" / "compare-own.html").write_text("<p>the page")
    (record,) = read_runs(home)
    record = record.model_copy(update={"cluster": str(folder / "own.yaml"), "page": "compare-own.html"})
    write_record(home, record)
    made = Tracked(home, record)
    made.catch_up()
    return made
