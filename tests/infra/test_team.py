"""Servers for a team: what is shipped passes its readers' own parsers, and serves a run over PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from infra.access import PREFECT_AUTH, mlflow_auth
from infra.servers import UNKNOWN, check_mlflow, check_prefect
from tests.kit.command import run_xclr, succeeds
from tests.kit.jobs import few_jobs
from tests.kit.postgres import programs
from tests.kit.servers import status_of
from tests.kit.team import (
    PORTS,
    ROOT,
    SECRETS,
    UNITS,
    Team,
    here,
    passwords,
    service,
    serving_team,
    type_commands,
)
from xclr.errors import RecipeError

EXPOSED = {"prefect": 25, "mlflow": 25, "worker": 60}  # at most, as systemd rates them; a plain service has 96 of 100
SHARED = {"prefect PGPASSWORD", "mlflow PGPASSWORD", "worker PREFECT_API_AUTH_STRING"}  # stand in another file too


def needs(program: object, name: str) -> None:
    """Skip the test where a program is missing; in CI it fails."""
    if program is None:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing(f"{name} is not installed: .ci/run names Debian's package")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """The folder of secrets that the page's commands make."""
    folder = tmp_path_factory.mktemp("team") / "secrets"
    type_commands("openssl", {SECRETS: folder})
    return folder


def test_secrets_are_their_owner_s_alone_and_no_two_are_the_same(drawn):
    assert sorted(path.name for path in drawn.iterdir()) == ["mlflow.env", "postgres.env", "prefect.env", "worker.env"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in drawn.iterdir()} == {0o600}
    own = [value for name, value in passwords(drawn).items() if name not in SHARED]
    assert len(set(own)) == len(own) == 7 and min(map(len, own)) >= 40


@pytest.mark.parametrize("name", EXPOSED)
def test_systemd_takes_a_unit_and_finds_it_closed(name, drawn, tmp_path):
    needs(shutil.which("systemd-analyze"), "systemd-analyze")
    path = tmp_path / f"xclr-{name}.service"
    path.write_text(here((UNITS / path.name).read_text(), {SECRETS: drawn}))
    read = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
    assert (read.returncode, read.stdout + read.stderr) == (0, "")
    rating = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSED[name]}", path]
    rated = subprocess.run(rating, capture_output=True, text=True)
    assert rated.returncode == 0, rated.stdout


@pytest.fixture(scope="module")
def containers(drawn) -> dict[str, dict[str, object]]:
    """The services of compose.yaml, as Docker's own parser reads them."""
    needs(shutil.which("docker-compose"), "docker-compose")
    read = subprocess.run(
        ["docker-compose", "--file", ROOT / "infra" / "compose.yaml", "config"],
        env={"PATH": os.environ["PATH"], "XCLR_SECRETS": str(drawn)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (read.returncode, read.stderr) == (0, "")
    return yaml.safe_load(read.stdout)["services"]


def test_images_are_of_the_versions_that_are_tested(containers):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert containers["prefect"]["image"] == f"prefecthq/prefect:{tested['prefect']}-python3.11"
    assert containers["mlflow"]["image"] == f"ghcr.io/mlflow/mlflow:v{tested['mlflow']}-full"


@pytest.mark.parametrize("name", PORTS)
def test_a_container_starts_what_the_unit_starts_and_both_are_on_loopback_alone(name, containers, drawn):
    (program, *arguments), environment = service(name, {SECRETS: drawn})
    published, inside = containers[name]["ports"], containers[name]["environment"]
    assert [str(each).removesuffix("/tcp") for each in published] == [f"127.0.0.1:{PORTS[name]}:{PORTS[name]}"]
    assert [Path(program).name, *arguments] == containers[name]["command"].replace("0.0.0.0", "127.0.0.1").split()
    places = {"PGHOST", "PREFECT_HOME", "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_AUTH_CONFIG_PATH"}
    assert {key for key, value in environment.items() if inside.get(key) != value} <= places
    assert "ports" not in containers["postgres"]


@pytest.fixture(scope="module")
def team(drawn) -> Iterator[Team]:
    """PostgreSQL, and Prefect and MLflow over it."""
    needs(programs(), "PostgreSQL")
    with serving_team(drawn) as up:
        yield up


@pytest.mark.slow
def test_servers_tell_who_asks_and_are_told_from_each_other(team):
    known, prefect, mlflow = team.client, f"{team.addresses['prefect']}/api", team.addresses["mlflow"]
    assert check_prefect(prefect, known[PREFECT_AUTH]) == metadata.version("prefect")
    assert check_mlflow(mlflow, mlflow_auth(known)) == metadata.version("mlflow")
    assert check_prefect(prefect) == check_mlflow(mlflow) == UNKNOWN
    for check, address in ((check_prefect, prefect), (check_mlflow, mlflow)):
        with pytest.raises(RecipeError, match=f"at {address} does not know who asks"):
            check(address, "worker:another password")
    with pytest.raises(RecipeError, match="is not MLflow"):
        check_mlflow(team.addresses["prefect"])
    with pytest.raises(RecipeError, match="is not Prefect"):
        check_prefect(mlflow)


@pytest.mark.slow
def test_mlflow_answers_to_its_public_name_and_to_no_other(team):
    known = {"Authorization": f"Basic {b64encode(mlflow_auth(team.client).encode()).decode()}"}
    path = "/api/2.0/mlflow/experiments/get?experiment_id=0"
    for host, status in (("mlflow.example.org", 200), ("evil.example", 403)):
        assert status_of(team.addresses["mlflow"], "GET", path, Host=host, **known) == status


@pytest.mark.slow
def test_a_run_is_in_both_databases_and_no_password_is_anywhere(team, own_home, tmp_path):
    home = shutil.copytree(own_home, tmp_path / "home")
    recipe = json.loads((home / "runs" / "own-1.json").read_text())["recipe"]
    (tmp_path / "own.yaml").write_text(json.dumps(recipe))
    more = ("--set", "seeds=[2]", "--set", "objectives=[clip]")  # a network that is not there: a job trains it
    done = succeeds(
        run_xclr(
            "run", "own.yaml", *more, cwd=tmp_path, XCLR_HOME=str(home), XCLR_CLUSTER=few_jobs(tmp_path), **team.client
        )
    )

    assert team.database.ask("prefect", "SELECT state_type FROM flow_run") == ["COMPLETED"]
    assert set(team.database.ask("prefect", "SELECT state_type FROM task_run")) == {"COMPLETED"}
    assert set(team.database.ask("mlflow", "SELECT status FROM runs")) == {"FINISHED"}
    steps = team.database.ask("mlflow", "SELECT step FROM metrics WHERE key = 'train/loss' ORDER BY step")
    assert steps == [str(step) for step in range(1, 9)]
    assert team.database.ask("mlflow", "SELECT key FROM metrics WHERE key LIKE 'eval/linear/%'")

    assert list(home.glob("artifacts/pretrain/*/jobs/*/*.pkl")), "no job was submitted"
    tops = (home, team.secrets.parent)
    files = {path: path.read_bytes() for top in tops for path in top.rglob("*") if path.is_file()}
    told = {str(path): what for path, what in files.items() if path.parent != team.secrets}
    told |= {name: text.encode() for name, text in {**team.told(), "terminal": done.stdout + done.stderr}.items()}
    assert {"prefect.log", "mlflow.log"} <= {Path(where).name for where in told}
    found = {
        where: name
        for name, value in passwords(team.secrets).items()
        for where, what in told.items()
        if value.encode() in what
    }
    assert found == {}
