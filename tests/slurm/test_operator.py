"""What an operator sees and does: status, logs, retry, costs, doctor, on real jobs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from infra import servers
from infra.cluster import Cluster
from infra.doctor.cluster import examine_cluster
from infra.finding import Finding
from infra.home.costs import costs_of
from infra.home.runs import read_runs
from infra.resources import Resources
from infra.slurm import look
from infra.tracking.links import sqlite_uri
from tests.kit.command import ROOT, call_xclr, command, fails, run_xclr, succeeds
from tests.kit.databases import give_databases
from tests.kit.polling import until
from tests.kit.recipes import TINY, tiny
from tests.kit.runs import begin_with_graph
from tests.kit.slurm import HELD_AT, JOB, RECIPE, everything_taken, on_slurm, slurm, state_of
from tests.kit.terminal import in_terminal
from tests.kit.trainings import Training

PLACE = {"tracking": {"models": False}}


def said(home: Path, *arguments: str) -> str:
    """What the command line prints."""
    return succeeds(call_xclr(*arguments, "--home", str(home), cwd=home.parent)).stdout


def line_of(home: Path) -> dict[str, object]:
    """The training in `xclr status --json`."""
    (found,) = [each for each in json.loads(said(home, "status", "--json"))["jobs"] if each["stage"].startswith("pre")]
    return found


def test_status_and_logs_follow_a_job_from_the_queue_to_its_end(cluster, home):
    with Training(home, RECIPE, on_slurm(), held_at=HELD_AT) as training:
        followed = training.follow()
        with everything_taken():  # a running job makes way
            job = training.job()
            if state_of(job) == "RUNNING":
                slurm("scontrol", "requeue", job)
            until(lambda: any(why in line_of(home)["reason"] for why in ("waits for free nodes", "higher")))
            waiting = line_of(home)
            assert (waiting["job_id"], waiting["state"], waiting["node"]) == (job, "pending", "")
            table = said(home, "status")
            assert job in table and "pending" in table
            follower = subprocess.Popen(
                command(home, "logs", job, "--follow"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        training.reach(HELD_AT)
        running = line_of(home)
        assert running["state"] == "running" and running["node"] in ("n1", "n2")
        assert 0 < running["remaining_s"] < 3600 and running["elapsed_s"] < 600
        assert Path(running["log"]).exists() and running["run"] == training.entry().run
        training.release()
        followed.result()
        out, told = follower.communicate()
        assert "Exiting after successful completion" in out
        assert str(running["log"]) in told
        assert "global_rank=1(2)" in said(home, "logs", job, "--rank", "1")


def test_a_failed_run_is_tried_again_and_finds_what_is_done(cluster, home, tmp_path):
    recipe, place = tmp_path / "again.yaml", tmp_path / "place.yaml"
    own = {"name": "again", "train": TINY["train"] | {"epochs": 1}, "retries": {"crashes": 0, "lost_after_s": 5}}
    recipe.write_text(yaml.safe_dump(TINY | own))
    place.write_text(yaml.safe_dump(PLACE | {"stages": {"pretrain": JOB | {"setup": ["exit 3"]}}}))
    here = ("--home", str(give_databases(begin_with_graph(home))))
    with servers.using(servers.PREFECT, home / "state"):  # else each of two runs starts one
        done = run_xclr("run", str(recipe), "--cluster", str(place), *here, cwd=tmp_path)
        fails(done, "its job ended without a result")
        place.write_text(yaml.safe_dump(PLACE | {"stages": {"pretrain": JOB}}))
        done = in_terminal(command(home, "retry", "again"), cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert "stages found" in done.stdout and read_runs(home)[-1].state == "completed"
    assert done.wide == []


def test_what_jobs_used_is_in_mlflow_and_by_stage_and_method(accounting, home):
    with Training(home, tiny(epochs=1), on_slurm()) as training:
        training.follow().result()
    (row,) = costs_of(home, read_runs(home)[-1])
    assert (row.stage, row.method, row.jobs) == ("pretrain", "simclr", 1)
    assert 0 < row.gpu_hours == pytest.approx(row.cpu_hours, rel=0.01)  # two GPUs, two cores
    assert 0 < row.cpu_efficiency < 2
    client = MlflowClient(sqlite_uri(home / "state"))
    experiment = client.get_experiment_by_name("tiny").experiment_id
    (logged,) = client.search_runs([experiment], f"tags.digest = '{training.digest}'")
    assert logged.data.metrics["usage/pretrain/gpu_hours"] == pytest.approx(row.gpu_hours)
    assert logged.data.metrics["usage/pretrain/cpu_efficiency"] == pytest.approx(row.cpu_efficiency)
    assert json.loads(said(home, "costs", "--json")) == [row.model_dump()]
    assert "pretrain" in said(home, "costs", "tiny")


GOOD = {"executor": "slurm", "partition": "main", "ranks": 8, "gpus": 8, "threads": 2, "timeout_min": 60}


def finding(home: Path, **changes: object) -> Finding:
    """What the doctor says of one stage kind."""
    place = Cluster(name="mine", stages={"pretrain": Resources.model_validate(GOOD | changes)})
    return next(each for each in examine_cluster(place, home) if each.check == "pretrain")


def test_the_doctor_lets_a_cluster_file_that_fits_pass(accounting, home):
    assert finding(home).state == "ok" and "on nodes n" in finding(home).found
    assert finding(home, nodes=2, constraint="pretended", memory_gb=100).state == "ok"
    checks = {each.check: each for each in examine_cluster(Cluster(name="m", stages={"suite": GOOD}), home)}
    assert checks["accounting"].found == "slurmdbd" and checks["preemption"].state == "ok"
    assert "1001" in checks["Slurm"].found


@pytest.mark.parametrize(
    ("changes", "part", "remedy"),
    [
        ({"partition": "mian"}, "no partition 'mian'", "partition: main"),
        ({"partition": "short", "timeout_min": 31}, "timeout_min 31 is above the 30 of short", "timeout_min: 30"),
        ({"ranks": 16, "gpus": 16}, "16 GPUs on each node, main has 8", "at most 8 GPUs"),
        ({"nodes": 4}, "4 nodes, main has 2", "nodes: 2"),
        ({"cpus": 9}, "72 cores on each node, main has 64", "at most 64 cores"),
        ({"memory_gb": 600}, "614400 MB of memory", "at most 512000 MB"),
        ({"constraint": "h100"}, "no node of main has h100", "features there: pretended"),
        ({"sbatch": {"licenses": "nothing"}}, "sbatch: ", "change stages.pretrain"),
    ],
)
def test_the_doctor_names_what_does_not_fit_and_what_would(accounting, home, changes, part, remedy):
    found = finding(home, **changes)
    assert found.state == "wrong" and part in found.found and remedy in found.remedy


def test_the_doctor_says_when_slurm_does_not_answer(home, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(home / "none.conf"))
    monkeypatch.setattr(look, "ANSWERS_WITHIN_S", 2)
    found = list(examine_cluster(Cluster(name="m", stages={"suite": GOOD}), home))
    assert [each.state for each in found] == ["wrong"]
