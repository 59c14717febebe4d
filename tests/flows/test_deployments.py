"""Deployments as an ordinary Prefect user has them: the real server, worker and command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prefect.utilities.templating import apply_values

from flows.deploy import describe
from infra.home.runs import read_runs
from infra.home.status import status, view
from infra.ledger import Book
from infra.processes import find_process
from tests.kit.jobs import attempts, training_job
from tests.kit.polling import until
from tests.kit.prefect import artifacts_of, ask, end_of, run_deployment
from tests.kit.tracked import states
from xclr.recipe import recipe_names
from xclr.sweep.load import load_sweep, sweep_names
from xclr.sweep.spec import Sweep

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def test_every_named_recipe_has_its_deployments():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    named = {f"{each['entrypoint'].rpartition(':')[2]}/{each['name']}" for each in deployments}
    recipes = {f"{flow}/{name}" for flow in ("full", "data", "evaluate") for name in recipe_names()}
    assert named == recipes | {f"sweep/{name}" for name in sweep_names()}
    for each in deployments:
        what = "sweep" if each["tags"] == ["sweep"] else "recipe"
        assert each["parameters"] == {what: f"{{{{ xclr.{what}s.{each['name']} }}}}"}


def test_deployments_have_their_whole_descriptions_and_no_schedules(prefect, served):
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    for each in deployments:
        assert each["description"].endswith("."), "it is cut"
        there = ask(served, f"/deployments/name/xclr-{each['entrypoint'].rpartition(':')[2]}/{each['name']}")
        assert (there["description"], there["schedules"]) == (each["description"], [])


def test_every_named_sweep_reaches_its_deployment_as_its_file_says():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    swept = {each["name"]: each["parameters"] for each in deployments if each["tags"] == ["sweep"]}
    assert set(swept) == set(sweep_names())
    for name, parameters in swept.items():
        filled = json.loads(json.dumps(apply_values(parameters, {"xclr": describe()})))
        assert Sweep.model_validate(filled["sweep"]) == load_sweep(name, {})


def test_the_deployments_of_sweeps_are_what_their_files_say(prefect, served):
    for name in sweep_names():
        parameters = ask(served, f"/deployments/name/xclr-sweep/{name}")["parameters"]
        assert Sweep.model_validate(parameters["sweep"]) == load_sweep(name, {})


def test_a_run_after_the_command_line_finds_everything_and_tells_its_end(prefect, served, told):
    before = attempts(served.home)
    unchanged = 'overrides=["objective.target_temperature=0.1"]'  # what it is anyway
    done = prefect("deployment", "run", "xclr-full/smoke", "--watch", "--param", unchanged)
    assert done.returncode == 0, done.stdout
    assert done.lines[-1] == "Flow run finished successfully in 'Completed'."
    assert "38 of 38 stages found" in done.stdout, "a run that is watched shows its log"
    assert attempts(served.home) == before
    flow_run = re.search(r"UUID: (\S+)", done.stdout).group(1)
    assert flow_run in {each.flow_run for each in read_runs(served.home)}
    until(lambda: "xclr smoke: Completed" in [each["title"] for each in told.got if flow_run in each["text"]])
    shown = artifacts_of(served, flow_run)
    assert "| xclr" in shown["smoke-comparison"]["data"]
    assert f"{served.mlflow}/#/compare-runs?runs=" in shown["smoke-mlflow-compare"]["data"]
    assert f"{served.mlflow}/#/experiments/" in shown["smoke-mlflow-experiment"]["data"]
    assert "/runs/" in shown["mlflow-xclr-seed-0"]["data"]
    logs = ask(served, "/logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run]}}})
    assert any("captions hit" in each["message"] for each in logs)


def test_the_other_flows_find_everything_too(prefect, served):
    before = attempts(served.home)
    runs = [run_deployment(served, f"{flow}/smoke") for flow in ("xclr-data", "xclr-evaluate")]
    assert {end_of(served, each)["type"] for each in runs} == {"COMPLETED"}
    assert attempts(served.home) == before


MISSING = {
    "xclr-full/cc3m": ([], ["Train_GCC-training.tsv", "->"]),
    "xclr-full/imagenet": ([], ["imagenet", "->"]),
    "xclr-evaluate/emoji": ([], ["is not in", "xclr retry emoji"]),
}


def test_what_is_missing_fails_the_run_with_a_remedy(prefect, served):
    runs = {name: run_deployment(served, name, overrides=changes) for name, (changes, _) in MISSING.items()}
    for name, (_, parts) in MISSING.items():
        state = end_of(served, runs[name])
        assert state["type"] == "FAILED", name
        assert all(part in state["message"] for part in parts), state["message"]
        assert "\n" not in state["message"]


def test_a_run_that_is_watched_ends_with_why_it_failed_and_so_says_status(prefect, served):
    nowhere = 'overrides=["data.url=http://nobody.invalid/cc12m.tsv"]'
    done = prefect("deployment", "run", "xclr-full/cc12m", "--watch", "--param", nowhere)
    assert done.returncode == 1
    assert done.lines[-1] == "Flow run finished in state 'Failed'."  # Prefect's own; above it the run's last
    last = " ".join("\n".join(done.lines[:-1]).rpartition("▪")[2].split())
    assert "cc12m.tsv cannot be fetched" in last and "->" in last and "data.path" in last
    assert "Traceback" not in done.stdout
    (line,) = [each for each in status(view(served.home, everything=True)).runs if each.recipe == "cc12m"]
    assert line.state == "failed" and "cc12m.tsv cannot be fetched" in line.reason


def test_the_run_form_knows_help_enums_and_ranges(prefect, served):
    schema = ask(served, "/deployments/name/xclr-full/emoji")["parameter_openapi_schema"]
    models = schema["definitions"]
    train = models["TrainConfig"]["properties"]
    assert train["epochs"]["minimum"] == 1
    assert "resnet50" in train["backbone"]["anyOf"][0]["enum"]
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
    assert "maybe" in done.stdout


def test_a_long_stage_shows_progress_and_a_cancelled_run_ends_its_job(prefect, served):
    changes = ["name=long", "objectives=[simclr]", "train.epochs=5000", "train.log_every=1"]
    flow_run = run_deployment(served, "xclr-full/smoke", overrides=changes)
    entry = training_job(served.home, "long")
    shown = until(lambda: artifacts_of(served, flow_run).get("progress-pretrain-simclr-seed-0"))
    assert 0 < shown["data"] < 100
    assert shown["task_run_id"]
    assert prefect("flow-run", "cancel", flow_run).returncode == 0
    until(lambda: find_process(entry.job) is None)
    until(lambda: next(each for each in read_runs(served.home) if each.flow_run == flow_run).state == "cancelled")
    assert Book(served.home).latest(entry.digest).attempt == entry.attempt
    until(lambda: states(served.home, "long").get(entry.digest) == "KILLED")
