"""Deployments as an ordinary Prefect user has them: the real server, worker and command line."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prefect.utilities.templating import apply_values

from flows.deploy import describe
from infra.ledger import Book, Entry, find_process
from infra.runs import read_runs
from tests.conftest import command
from tests.flows.worker import Prefect, client_environment, deployed
from xclr.recipe import recipe_names
from xclr.sweep import Sweep, load_sweep, sweep_names

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prefect(served, smoke_home, tmp_path_factory) -> Iterator[Prefect]:
    """Prefect's command line after work pool, deploy and worker."""
    with deployed(client_environment(served, smoke_home, tmp_path_factory.mktemp("client"))) as call:
        yield call


def api(served, path: str, body: object | None = None) -> object:
    """Ask Prefect's server."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{served.prefect}/api{path}", data, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))


def attempts(home: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in home.glob("ledger/*/*.json")}


def flow_run_of(said: str) -> str:
    return re.search(r"UUID: (\S+)", said).group(1)


def artifacts(served, flow_run: str) -> dict[str, dict[str, object]]:
    found = api(served, "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run]}}})
    return {each["key"]: each for each in found}


def test_every_named_recipe_has_its_deployments():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    named = {f"{each['entrypoint'].rpartition(':')[2]}/{each['name']}" for each in deployments}
    recipes = {f"{flow}/{name}" for flow in ("full", "data", "evaluate") for name in recipe_names()}
    assert named == recipes | {f"sweep/{name}" for name in sweep_names()}
    for each in deployments:
        what = "sweep" if each["tags"] == ["sweep"] else "recipe"
        assert each["parameters"] == {what: f"{{{{ xclr.{what}s.{each['name']} }}}}"}


def test_every_named_sweep_reaches_its_deployment_as_its_file_says():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    swept = {each["name"]: each["parameters"] for each in deployments if each["tags"] == ["sweep"]}
    assert set(swept) == {"temperature", "graph", "data-size"}
    for name, parameters in swept.items():
        filled = json.loads(json.dumps(apply_values(parameters, {"xclr": describe()})))
        assert Sweep.model_validate(filled["sweep"]) == load_sweep(name, {})


def test_the_deployments_of_sweeps_are_what_their_files_say(prefect, served):
    for name in sweep_names():
        parameters = api(served, f"/deployments/name/xclr-sweep/{name}")["parameters"]
        assert Sweep.model_validate(parameters["sweep"]) == load_sweep(name, {})


def test_a_run_after_the_command_line_finds_everything(prefect, served, smoke_home):
    before = attempts(smoke_home)
    done = prefect("deployment", "run", "xclr-full/smoke", "--watch")
    assert done.returncode == 0, done.stdout
    assert attempts(smoke_home) == before
    flow_run = flow_run_of(done.stdout)
    assert read_runs(smoke_home)[-1].flow_run == flow_run
    shown = artifacts(served, flow_run)
    assert "| xclr" in shown["smoke-comparison"]["data"]
    assert f"{served.mlflow}/#/compare-runs?runs=" in shown["smoke-mlflow-compare"]["data"]
    assert f"{served.mlflow}/#/experiments/" in shown["smoke-mlflow-experiment"]["data"]
    assert "/runs/" in shown["mlflow-xclr-seed-0"]["data"]
    logs = api(served, "/logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run]}}})
    assert any("captions hit" in each["message"] for each in logs)


def test_the_command_line_uses_the_servers_that_are_up(served, smoke_home):
    done = subprocess.run(command(smoke_home, "run", "smoke"), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert f"mlflow      {served.mlflow}/#/experiments/" in done.stderr
    assert f"prefect     {served.prefect}/" in done.stderr
    run = api(served, f"/flow_runs/{read_runs(smoke_home)[-1].flow_run}")
    assert run["state"]["type"] == "COMPLETED"


@pytest.mark.parametrize("flow", ["xclr-data", "xclr-evaluate"])
def test_the_other_flows_find_everything_too(flow, prefect, smoke_home):
    before = attempts(smoke_home)
    done = prefect("deployment", "run", f"{flow}/smoke", "--watch")
    assert done.returncode == 0, done.stdout
    assert attempts(smoke_home) == before


@pytest.mark.parametrize(
    ("deployment", "overrides", "parts"),
    [
        ("xclr-full/cc12m", ["data.url=http://nobody.invalid/cc12m.tsv"], ["cc12m.tsv cannot be fetched", "data.path"]),
        ("xclr-full/cc3m", [], ["Train_GCC-training.tsv", "->"]),
        ("xclr-full/imagenet", [], ["imagenet", "->"]),
        ("xclr-evaluate/emoji", [], ["is not in", "run xclr-full first"]),
    ],
)
def test_what_is_missing_fails_the_run_with_a_remedy(deployment, overrides, parts, prefect, served):
    done = prefect("deployment", "run", deployment, "--watch", "--param", f"overrides={json.dumps(overrides)}")
    assert done.returncode == 1, done.stdout
    state = api(served, f"/flow_runs/{flow_run_of(done.stdout)}")["state"]
    assert state["type"] == "FAILED"
    for part in parts:
        assert part in state["message"]


def test_the_run_form_knows_help_enums_and_ranges(prefect, served):
    schema = api(served, "/deployments/name/xclr-full/emoji")["parameter_openapi_schema"]
    models = schema["definitions"]
    train = models["TrainConfig"]["properties"]
    assert train["epochs"]["minimum"] == 1
    assert train["backbone"]["enum"]
    assert schema["properties"]["until"]["enum"][-1] == "compare"
    fields = [(name, each) for name, model in models.items() for each in model["properties"].items()]
    bare = [
        f"{model}.{field}" for model, (field, about) in fields if "description" not in about and "$ref" not in about
    ]
    assert [each for each in bare if not each.endswith(".name")] == []
    assert all("description" in each for each in schema["properties"].values())


def test_a_value_out_of_range_is_refused_before_anything_runs(prefect):
    done = prefect("deployment", "run", "xclr-full/smoke", "--param", 'mode="maybe"')
    assert done.returncode == 1
    assert "maybe" in done.stdout + done.stderr


def training(home: Path, recipe: str) -> Entry:
    """The running training job of a recipe, once it is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        ours = {each.run for each in read_runs(home) if each.recipe.name == recipe}
        for entry in Book(home).read().entries:
            if (
                entry.run in ours
                and entry.stage.startswith("pretrain simclr")
                and entry.log
                and find_process(entry.job)
            ):
                return entry
        time.sleep(0.2)
    raise AssertionError("no training job came about")


def test_a_long_stage_shows_progress_and_a_cancelled_run_ends_its_job(prefect, served, smoke_home):
    changes = ["name=long", "objectives=[simclr]", "train.epochs=5000", "train.log_every=1"]
    started = prefect("deployment", "run", "xclr-full/smoke", "--param", f"overrides={json.dumps(changes)}")
    assert started.returncode == 0, started.stdout + started.stderr
    flow_run = flow_run_of(started.stdout)
    entry = training(smoke_home, "long")
    deadline = time.monotonic() + 60
    while not (shown := artifacts(served, flow_run).get("progress-pretrain-simclr-seed-0")):
        assert time.monotonic() < deadline, "no progress artifact"
        time.sleep(0.5)
    assert 0 < shown["data"] < 100
    assert shown["task_run_id"]
    assert prefect("flow-run", "cancel", flow_run).returncode == 0
    deadline = time.monotonic() + 60
    while find_process(entry.job):
        assert time.monotonic() < deadline, "the job of a cancelled run goes on"
        time.sleep(0.2)
    while read_runs(smoke_home)[-1].state != "cancelled":
        assert time.monotonic() < deadline, read_runs(smoke_home)[-1].state
        time.sleep(0.2)
    assert Book(smoke_home).latest(entry.digest).attempt == entry.attempt
