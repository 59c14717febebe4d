"""The main job end to end: real pictures, text model, Prefect, jobs and MLflow."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from infra import servers
from infra.home.runs import read_runs, write_record
from infra.processes import now
from infra.tracking.links import sqlite_uri
from tests.kit.command import call_xclr, command, run_xclr, succeeds
from tests.kit.jobs import attempts
from tests.kit.prefect import ask
from xclr import schema
from xclr.pipeline import pipeline
from xclr.recipe import load_recipe
from xclr.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture
def home(smoke_home: Path) -> Path:
    """The HOME of the finished smoke run."""
    return smoke_home


@pytest.fixture
def copy(smoke_home: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return shutil.copytree(smoke_home, tmp_path / "home")


def xclr(home: Path, *arguments: str):
    return succeeds(call_xclr(*arguments, "--home", str(home), cwd=home))


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


def test_a_run_and_compare_leave_a_page_and_say_where(copy, home, tmp_path):
    name = f"compare-{read_runs(home)[-1].run}.html"
    assert (home / "said.txt").read_text().splitlines()[-1] == f"page        {home / 'pages' / name}"
    assert (home / "pages" / "compare-smoke.html").readlink() == Path(name)
    page = copy / "pages" / name
    made = page.read_text()
    page.unlink()
    rows = xclr(copy, "compare", "--json")
    assert rows.stderr == ""
    assert not page.exists()
    done = xclr(copy, "compare", "smoke", "--json", "--out", str(tmp_path / "mine.html"))
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
        assert {"eval/imagenet/val_top1", "eval/imagenet9/gap"} <= set(run.data.metrics)
        assert run.data.tags["prefect_flow_run"]
        assert ("train/loss" in run.data.metrics) == (method != "random")
    assert "train/target_entropy" in methods["xclr"].data.metrics


def test_prefect_holds_a_task_run_a_stage_and_suite_with_upstream_edges(home, served):
    completed = [each.flow_run for each in read_runs(home) if each.state == "completed"]
    tasks = ask(served, "/task_runs/filter", {"flow_runs": {"id": {"any_": completed}}})
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


def test_a_second_run_does_nothing_and_leaves_no_server_behind(copy):
    before = attempts(copy)
    later = read_runs(copy)[-1].model_copy(update={"run": "other-1", "started": now() + timedelta(days=1)})
    write_record(copy, later.model_copy(update={"recipe": later.recipe.model_copy(update={"name": "other"})}))
    done = succeeds(run_xclr("run", "smoke", "--home", str(copy), cwd=copy))
    assert attempts(copy) == before
    assert done.stdout == (copy / "table.txt").read_text()
    assert servers.find(servers.PREFECT, copy / "state") is None
    own, other = read_runs(copy)[-2:]
    assert (own.state, other.run) == ("completed", "other-1")
    assert done.stderr.splitlines()[-1].endswith(f"/compare-{own.run}.html"), "the page is another run's"
    assert {each.name for each in (copy / "pages").glob("compare-smoke-*")} >= {
        f"compare-{each.run}.html" for each in read_runs(copy)[-3:-1]
    }


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


def test_serve_brings_both_uis_up(served, tmp_path):
    for address in (f"{served.prefect}/api/health", f"{served.mlflow}/health"):
        assert urllib.request.urlopen(address).status == 200
    settings = json.load(urllib.request.urlopen(f"{served.prefect}/ui-settings"))
    assert settings["api_url"] == f"{served.prefect}/api", "the pages ask another server"
    port = str(urlsplit(served.prefect).port)
    busy = subprocess.run([*command(tmp_path, "serve"), "--prefect-port", port], capture_output=True, text=True)
    assert busy.returncode == 1
    assert f"port {port} is in use" in busy.stderr
