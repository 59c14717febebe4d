"""A run whose own Prefect server is killed goes on, and ends as its work does."""

from __future__ import annotations

import pytest
import yaml

from infra import servers
from infra.home.runs import read_runs
from infra.processes import processes_of
from tests.kit.command import start_xclr
from tests.kit.databases import give_databases
from tests.kit.jobs import few_jobs
from tests.kit.recipes import TINY


@pytest.mark.slow
def test_a_prefect_server_that_is_lost_in_the_middle_is_a_warning(tmp_path):
    home, recipe = give_databases(tmp_path / "home"), tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY))
    process = start_xclr(
        home, "run", str(recipe), "--until", "pretrain", environment={"XCLR_CLUSTER": few_jobs(tmp_path)}
    )
    assert any("captions" in line for line in process.stderr)
    for each in processes_of(servers.find(servers.PREFECT, home / "state").process):
        each.kill()
    _, said = process.communicate(timeout=800)
    assert process.returncode == 0, said
    assert said.count("the prefect server had ended and was started again") == 1 and "Traceback" not in said
    assert read_runs(home)[-1].state == "completed"
