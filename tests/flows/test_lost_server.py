"""A run whose own Prefect server is killed goes on, and ends as its work does."""

from __future__ import annotations

import os
import subprocess

import pytest
import yaml

from infra import servers
from infra.home.runs import read_runs
from infra.processes import processes_of
from tests.kit.command import SCRIPT
from tests.kit.databases import give_databases
from tests.kit.jobs import few_jobs
from tests.kit.recipes import TINY


@pytest.mark.slow
def test_a_prefect_server_that_is_lost_in_the_middle_is_a_warning(tmp_path):
    home, recipe = give_databases(tmp_path / "home"), tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY))
    for name in ("logging.py", "prefect.py"):  # in the working directory: no modules of the server's, nor of jobs
        (tmp_path / name).write_text("raise SystemExit('a file of the user is run')")
    process = subprocess.Popen(
        [SCRIPT, "run", str(recipe), "--until", "pretrain", "--home", str(home)], cwd=tmp_path,
        env=os.environ | {"XCLR_CLUSTER": few_jobs(tmp_path)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    assert any("captions" in line for line in process.stderr)
    for each in processes_of(servers.find(servers.PREFECT, home / "state").process):
        each.kill()
    _, said = process.communicate(timeout=800)
    assert process.returncode == 0, said
    assert said.count("the prefect server had ended and was started again") == 1 and "Traceback" not in said
    assert read_runs(home)[-1].state == "completed"
