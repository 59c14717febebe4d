"""The main job end to end: real pictures, text model, Prefect, jobs and MLflow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from infra import servers
from infra.runs import read_runs
from infra.tracking import sqlite_uri
from tests.conftest import command, free_ports
from xclr import schema
from xclr.pipeline import pipeline
from xclr.recipe import load_recipe
from xclr.store import Store

pytestmark = pytest.mark.slow


def xclr(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(home, *arguments), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def home(smoke_home: Path) -> Path:
    """The HOME of the finished smoke run."""
    return smoke_home


def attempts(home: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in home.glob("ledger/*/*.json")}


def api(address: str, path: str, body: object) -> list[dict[str, object]]:
    request = urllib.request.Request(
        address + path, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    return json.load(urllib.request.urlopen(request))


def test_every_stage_left_a_verified_artifact(home):
    store = Store(home)
    for stage in pipeline(load_recipe("smoke"), store):
        artifact = store.find(stage.digest)
        assert artifact is not None, stage.name
        store.verify(artifact)


def test_the_table_has_every_method_and_suite(home):
    text = (home / "table.txt").read_text()
    for word in ("random", "simclr", "clip", "xclr", "ImageNet", "IN9 same", "bg gap", "zero-shot", "bootstrap"):
        assert word in text
    rows = json.loads(xclr(home, "compare", "--json").stdout)
    assert list(rows[0]) == schema.SCORES.names
    assert {row["method"] for row in rows} == {"random", "simclr", "clip", "xclr"}
    assert {row["suite"] for row in rows} == {"imagenet", "imagenet9", "zero-shot"}
    assert all(-1 <= row["value"] <= 1 and row["n"] > 0 for row in rows)
    distances = xclr(home, "compare", "--against", "clip").stdout
    assert "distance to clip of the same seed" in distances
    assert "│ xclr" in distances
    assert "│ clip" not in distances


def test_a_run_and_compare_leave_a_page_and_say_where(home, tmp_path):
    page = home / "pages" / "compare-smoke.html"
    assert (home / "said.txt").read_text().splitlines()[-1] == f"page        {page}"
    made = page.read_text()
    page.unlink()
    rows = xclr(home, "compare", "--json")
    assert rows.stderr == ""
    assert not page.exists()
    done = xclr(home, "compare", "smoke", "--json", "--out", str(tmp_path / "mine.html"))
    assert done.stdout == rows.stdout
    assert done.stderr == f"page        {tmp_path / 'mine.html'}\n"
    assert (tmp_path / "mine.html").read_text() == made
    assert made.count("data:image/webp") == 10 * (1 + 4 * 6)
    assert len(made) < 3_000_000
    for word in ("Scores", "Distance to clip", "entropy of the targets", "IN9 mixed", "xclr run smoke"):
        assert word in made


def test_each_distinct_caption_was_encoded_once(home):
    store = Store(home)
    (manifest,) = [store.manifest(found) for found in map(store.find, digests(store, "embeddings")) if found]
    (captions,) = [store.manifest(found) for found in map(store.find, digests(store, "captions")) if found]
    assert manifest.stats["distinct"] == captions.stats["distinct"] < captions.stats["rows"]


def digests(store: Store, kind: str):
    return [stage.digest for stage in pipeline(load_recipe("smoke"), store) if stage.kind.name == kind]


def test_images_account_for_every_caption(home):
    store = Store(home)
    (captions,), (images,) = (digests(store, kind) for kind in ("captions", "images"))
    rows = pq.read_table(store.reference(images).path / "images.parquet")
    assert rows.column("row_id").to_pylist() == list(range(store.manifest(store.reference(captions)).stats["rows"]))


def test_mlflow_holds_one_run_a_method_with_curve_and_scores(home):
    client = MlflowClient(sqlite_uri(home / "state"))
    runs = client.search_runs([client.get_experiment_by_name("smoke").experiment_id])
    methods = {run.data.tags["method"]: run for run in runs if "method" in run.data.tags}
    assert set(methods) == {"random", "simclr", "clip", "xclr"}
    for method, run in methods.items():
        assert {"eval/imagenet/val_top1", "eval/imagenet9/gap_gap"} <= set(run.data.metrics)
        assert run.data.tags["prefect_flow_run"]
        assert ("train/loss" in run.data.metrics) == (method != "random")
    assert "train/target_entropy" in methods["xclr"].data.metrics


def test_prefect_holds_a_task_run_a_stage_and_suite_with_upstream_edges(home):
    with servers.using(servers.PREFECT, home / "state") as address:
        asked = {"sort": "START_TIME_DESC", "flows": {"name": {"any_": ["xclr-full"]}}}
        flow_runs = api(address, "/api/flow_runs/filter", asked)
        completed = [each for each in flow_runs if each["state_type"] == "COMPLETED"]
        tasks = api(address, "/api/task_runs/filter", {"flow_runs": {"id": {"any_": [completed[0]["id"]]}}})
    names = {each["name"]: each for each in tasks}
    planned = pipeline(load_recipe("smoke"), Store(home))
    assert {stage.name for stage in planned} <= set(names)
    by_id = {each["id"]: each["name"] for each in tasks}

    def upstream(name: str) -> set[str]:
        inputs = names[name]["task_inputs"]
        return {by_id[one["id"]] for several in inputs.values() for one in several if one.get("id") in by_id}

    assert {"captions"} <= upstream("images")
    assert {"captions", "embeddings"} <= upstream("graph")
    assert {"pretrain xclr seed 0"} <= upstream("features xclr seed 0")
    assert {"export"} <= upstream("benchmark imagenet")
    assert {"benchmark imagenet", "pretrain xclr seed 0"} <= upstream("features of imagenet xclr seed 0")
    assert {"features of imagenet9 xclr seed 0", "probe xclr seed 0"} <= upstream("imagenet9 xclr seed 0")
    assert {"imagenet xclr seed 0", "zero-shot clip seed 0"} <= upstream("comparison")


def test_a_second_run_does_nothing_and_leaves_no_server_behind(home):
    before = attempts(home)
    done = xclr(home, "run", "smoke")
    assert attempts(home) == before
    assert done.stdout == (home / "table.txt").read_text()
    assert servers.find(servers.PREFECT, home / "state") is None
    assert read_runs(home)[-1].state == "completed"


def test_another_target_temperature_plans_only_what_follows_from_it(home):
    planned = json.loads(xclr(home, "plan", "smoke", "--json", "--set", "objective.target_temperature=0.2").stdout)
    missing = {row["stage"] for row in planned if row["state"] == "miss"}
    changed = "xclr target_temperature=0.2 seed 0"
    assert missing == {
        f"pretrain {changed}",
        f"features {changed}",
        f"features of imagenet {changed}",
        f"features of imagenet9 {changed}",
        f"probe {changed}",
        f"imagenet {changed}",
        f"imagenet9 {changed}",
        "comparison",
    }


def test_serve_brings_both_uis_up_and_takes_them_down(home):
    ports = free_ports(2)
    process = subprocess.Popen(
        [*command(home, "serve"), "--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1])],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        assert f":{ports[0]}" in lines[0]
        assert f":{ports[1]}" in lines[1]
        for port, path in zip(ports, ("/api/health", "/health"), strict=True):
            assert urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").status == 200
        settings = json.load(urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/ui-settings"))
        assert settings["api_url"] == f"http://127.0.0.1:{ports[0]}/api", "the pages ask another server"
        busy = subprocess.run(
            [*command(home.parent / "other", "serve"), "--prefect-port", str(ports[0])], capture_output=True, text=True
        )
        assert busy.returncode == 1
        assert f"port {ports[0]} is in use" in busy.stderr
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    deadline = time.monotonic() + 20
    while servers.find(servers.MLFLOW, home / "state") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert servers.find(servers.PREFECT, home / "state") is None
