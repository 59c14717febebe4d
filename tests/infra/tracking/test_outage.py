"""A real MLflow server that refuses, dies and comes back: the work goes on, and in the end all is there, once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from infra import servers
from infra.access import mlflow_access
from infra.catch_up import catch_up
from infra.home.ends import untold
from infra.ledger import Entry, JobState
from infra.processes import now, process_id
from infra.run import Run
from infra.stage import track_lost
from infra.tracking.experiment import bring_files_along, open_experiment
from infra.tracking.links import DATABASE, sqlite_uri
from infra.tracking.patient import UNTRACKED
from tests.kit.command import call_xclr, fails, succeeds
from tests.kit.databases import give_database
from tests.kit.polling import until
from tests.kit.runs import begin_with_data, data, open_run, pretrained, training_of
from tests.kit.tracked import points, spooled, states, tracked
from xclr.stage import Stage
from xclr.training.spool import SPOOL, Spool

AWAY = "http://127.0.0.1:9"  # nothing listens there
GONE = f"{socket.gethostname()}/4194305/1"  # no process has such a number


class Outages:
    """MLflow's server over a STATE, which may be killed and started again."""

    def __init__(self, state: Path) -> None:
        self.state, self.stack = state, ExitStack()
        self.start()

    def start(self) -> None:
        """Start it, at a port of its own."""
        self.uri = self.stack.enter_context(servers.using(servers.MLFLOW, self.state))

    def kill(self) -> None:
        """As a machine does that loses its power."""
        server = psutil.Process(int(servers.find(servers.MLFLOW, self.state).process.rsplit("/", 2)[1]))
        for each in (*server.children(recursive=True), server):
            os.kill(each.pid, signal.SIGKILL)
        until(lambda: servers.find(servers.MLFLOW, self.state) is None)


@pytest.fixture
def outages(home, monkeypatch) -> Iterator[Outages]:
    """Over a HOME whose data are told, but by another one, from which it was copied."""
    begin_with_data(home)
    for name, value in mlflow_access(home / "state").items():
        monkeypatch.setenv(name, value)
    found = Outages(home / "state")
    with found.stack:
        yield found


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back_has_all_of_a_run_once_and_the_files_of_a_copied_home(home, outages, caplog):
    state, files = home / "state", home / "state" / "mlflow-artifacts"
    bring_files_along(state / DATABASE, files)  # as xclr serve does
    run, said = open_run(home, uri=outages.uri), list[str]()
    run.tracker.say = said.append
    data(run)
    begin(run, training_of(run.recipe, run.store))
    client, runs = tracked(home, "tiny", outages.uri)
    assert {key: each.info.status for key, each in runs.items()} == {"data": "FINISHED", digest_of(run): "FAILED"}
    client.delete_experiment(runs["data"].info.experiment_id)
    outages.kill()
    checkpoint = pretrained(run)
    assert len(said) == 1 and run.tracker.kept, "a warning, and no more"
    run.tracker.close(ended=True)
    run.close("completed")
    assert [each.run for each in untold(home, state)] == [run.id]
    fails(call_xclr("sync", "--home", str(home), cwd=home, MLFLOW_TRACKING_URI=AWAY), "cannot be reached")

    outages.start()
    (first,) = catch_up(home, outages.uri, files, untold(home, state))
    assert (first.stages, first.goes_on, first.fault) == (1, False, "") and untold(home, state) == []
    assert "the experiment tiny data had been deleted; it is restored" in caplog.text
    (again,) = json.loads(succeeds(call_xclr("sync", "--home", str(home), "--json", cwd=home)).stdout)
    assert (again["run"], again["stages"], again["points"]) == (run.id, 0, 0)
    client, runs = tracked(home, "tiny", outages.uri)
    wanted = spooled(checkpoint.path / SPOOL)
    assert points(client, runs[digest_of(run)].info.run_id, wanted) == wanted
    assert first.points == sum(map(len, wanted.values()))
    assert {key: each.info.status for key, each in runs.items()} == {"data": "FINISHED", digest_of(run): "FINISHED"}
    for each, folder in ((runs["data"], "captions"), (runs[digest_of(run)], "pretrain")):  # before the copy, and after
        assert any(folder in shown.path for shown in client.list_artifacts(each.info.run_id))
        assert each.info.artifact_uri.startswith(files.as_uri())


def begin(run: Run, stage: Stage, job: str | None = None) -> Path:
    """Leave what a training leaves that logged two steps; without a job it has failed."""
    out = run.store.begin(stage.digest)
    spool = Spool(out / SPOOL, 0)
    spool(1, {"train/of_old": 1.0})
    run.tracker.follow(stage, out)
    spool(2, {"train/of_old": 0.5})
    own = {"digest": stage.digest, "kind": stage.kind.name, "stage": stage.name, "run": run.id, "owner": GONE}
    state = None if job else JobState.GONE
    assert run.book.claim(Entry(**own, attempt=1, claimed=now(), job=job or GONE, state=state))
    track_lost(run, stage)
    return out


def digest_of(run: Run) -> str:
    """The training's, which is what its run is known by."""
    return str(training_of(run.recipe, run.store).digest)


@pytest.mark.slow
def test_a_killed_run_is_mended_by_the_next_command_once_its_job_is_gone(home):
    begin_with_data(home)
    run, job = open_run(home), subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    data(run)
    try:
        out = begin(run, training_of(run.recipe, run.store), process_id(job.pid))
        run.save(process=GONE)
        succeeds(call_xclr("status", "--home", str(home), cwd=home))
        assert states(home, "tiny") == {"data": "FINISHED", digest_of(run): "RUNNING"}
        (told,) = json.loads(succeeds(call_xclr("sync", "tiny", "--home", str(home), "--json", cwd=home)).stdout)
        assert told == {"run": run.id, "stages": 0, "points": 0, "goes_on": True, "fault": ""}
    finally:
        job.kill()
        job.wait()
    succeeds(call_xclr("status", "--home", str(home), cwd=home))
    client, runs = tracked(home, "tiny")
    assert runs[digest_of(run)].info.status == "FAILED"
    assert points(client, runs[digest_of(run)].info.run_id, ["train/of_old"]) == spooled(out / SPOOL)
    assert not list((home / "state" / UNTRACKED).iterdir())


def test_two_homes_that_create_an_experiment_at_once_share_it(tmp_path):
    give_database(tmp_path)
    first = MlflowClient(sqlite_uri(tmp_path))

    class Second(MlflowClient):
        def create_experiment(self, name, place=None):
            made.append(first.create_experiment(name, place))
            return super().create_experiment(name, place)

    made: list[str] = []
    assert open_experiment(Second(sqlite_uri(tmp_path)), "emoji", None, made.append) == made[0]
    assert len(made) == 1
