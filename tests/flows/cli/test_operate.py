"""The operator's commands as an operator types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.home.runs import read_runs
from infra.ledger import Book
from infra.processes import find_process
from tests.kit.command import call_xclr, command, fails, start_xclr, succeeds
from tests.kit.databases import give_databases
from tests.kit.jobs import few_jobs, long_recipe, training_job
from tests.kit.polling import until
from tests.kit.runs import begin_with_graph


def test_an_empty_home(tmp_path):
    shown = call_xclr("status", cwd=tmp_path)
    assert (shown.returncode, "xclr run emoji starts one" in shown.stdout) == (0, True)
    assert json.loads(call_xclr("status", "--json", cwd=tmp_path).stdout) == {"runs": [], "jobs": [], "sweeps": []}
    collected = json.loads(call_xclr("gc", "--json", cwd=tmp_path).stdout)
    assert collected == {"dry_run": False, "bytes": 0, "removed": []}
    fails(call_xclr("cancel", "emoji", cwd=tmp_path), "no run 'emoji'", "nothing has run")
    fails(call_xclr("logs", "captions", cwd=tmp_path), "no job 'captions'", "nothing has run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_status_imports_nothing_heavy(tmp_path):
    code = "import sys; sys.argv = ['xclr', 'status']; from flows.cli.app import app; app(standalone_mode=False);"
    code += "print([name for name in ('prefect', 'torch', 'mlflow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")


@pytest.mark.slow
def test_a_run_is_seen_read_cancelled_and_cleaned_up(tmp_path, served):
    home = give_databases(begin_with_graph(tmp_path / "home"))
    there = {**served.environment, "XCLR_CLUSTER": few_jobs(tmp_path)}
    process = start_xclr(home, "run", long_recipe(tmp_path), "--until", "pretrain", environment=there)
    entry = training_job(home)

    def operate(*arguments):
        return succeeds(call_xclr(*arguments, "--home", str(home), cwd=tmp_path))

    facts = json.loads(operate("status", "--json").stdout)
    assert set(facts) == {"runs", "jobs", "sweeps"}
    assert set(facts["runs"][0]) == {"run", "recipe", "state", "started", "reason"}
    (job,) = [each for each in facts["jobs"] if each["job_id"] == entry.job]
    stable = ["run", "stage", "job_id", "state", "node", "elapsed_s", "reason", "log"]
    assert list(job) == [*stable, "remaining_s", "array", "progress", "starts"]
    assert (job["state"], job["run"]) == ("running", facts["runs"][0]["run"])
    table = operate("status").stdout
    assert "pretrain simclr seed 0" in table
    assert "running" in table

    follow = command(home, "logs", entry.job, "--follow")
    follower = subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    inline = operate("logs", "captions")
    assert (inline.stdout, "in the run's own process" in inline.stderr) == ("", True)

    until(lambda: "submitit" in Path(entry.log).read_text())
    cancelled = json.loads(operate("cancel", "long", "--json").stdout)
    assert cancelled["run"] == facts["runs"][0]["run"]
    assert entry.job in [each["job_id"] for each in cancelled["ended"]]
    assert cancelled["left"] == []
    assert find_process(entry.job) is None
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"the run {cancelled['run']} was cancelled" in said
    assert "Traceback" not in said
    read, where = follower.communicate(timeout=300)
    assert follower.returncode == 0
    assert "submitit" in read
    assert where.strip() == entry.log
    assert operate("logs", entry.digest[:8], "--lines", "2").stdout.count("\n") <= 2

    after = json.loads(operate("status", "--json").stdout)
    assert [each["state"] for each in after["runs"]] == ["cancelled"]
    assert {each["state"] for each in after["jobs"] if each["job_id"] == entry.job} == {"cancelled"}
    fails(call_xclr("cancel", "long", "--home", str(home), cwd=tmp_path), "is cancelled and has no jobs")

    assert "nothing to remove" in operate("gc").stdout
    _forget_everything(home, operate)


def _forget_everything(home, operate):
    would = json.loads(operate("gc", "--keep", "0", "--dry-run", "--json").stdout)
    assert read_runs(home)
    assert {"run", "captions", "pretrain"} <= {each["kind"] for each in would["removed"]}
    shown = operate("gc", "--keep", "0").stdout
    assert f"{len(would['removed'])} items" in shown
    assert "removed" in shown
    assert read_runs(home) == []
    assert Book(home).read().entries == ()
    assert list((home / "artifacts").glob("*/*")) == []
