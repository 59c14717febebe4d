"""A HOME of an older version goes on: older.tar.gz holds what 9305fdf wrote of a smoke run, but for the data."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from infra.home.runs import scan_runs
from infra.ledger import Book, JobState
from tests.kit.command import call_xclr, succeeds
from xclr.pipeline import pipeline
from xclr.stage import Stage
from xclr.store import Store


@pytest.fixture(scope="module")
def older(tmp_path_factory) -> Path:
    """The run's record, ledger and manifests."""
    home = tmp_path_factory.mktemp("older")
    with tarfile.open(Path(__file__).with_name("older.tar.gz")) as tar:
        tar.extractall(home, filter="data")
    return home


RENAMED = (
    "pretrain clip ",
    "features of imagenet9 ",
)  # what comes out otherwise since: docs/architecture.md, decisions


def paired(home: Path) -> list[tuple[str, Stage, bool]]:
    """Each stage, the name of its output then, and whether that is another now: by itself, or by what it reads."""
    (record,), faults = scan_runs(home)
    assert faults == () and record.state == "completed"
    anew: set[str] = set()
    stages = list(pipeline(record.recipe, Store(home)))
    for stage in stages:
        if stage.name.startswith(RENAMED) or any(each.digest in anew for each in stage.inputs.values()):
            anew.add(stage.digest)
    return [(then, stage, stage.digest in anew) for then, stage in zip(record.digests, stages, strict=True)]


def test_its_run_is_planned_as_it_was_but_for_what_comes_out_otherwise(older):
    pairs = paired(older)
    assert all((then != stage.digest) is anew for then, stage, anew in pairs)
    kept = [stage.name for _, stage, anew in pairs if not anew]
    assert {"captions", "images", "embeddings", "graph", "pretrain xclr seed 0", "imagenet xclr seed 0"} <= set(kept)
    assert len(kept) > len(pairs) / 2


def test_its_manifests_say_of_each_stage_what_the_plan_says(older):
    store = Store(older)
    for _, stage, anew in paired(older):
        if not anew:
            manifest = store.manifest(store.reference(stage.digest))
            assert (manifest.kind, manifest.code, manifest.config) == (stage.kind.name, stage.kind.code, stage.identity)
            assert manifest.inputs == tuple(each.digest for each in stage.inputs.values())


def test_its_ledger_tells_who_made_what(older):
    (record,), _ = scan_runs(older)
    entries = [Book(older).latest(digest) for digest in record.digests]
    assert {(each.state, each.run) for each in entries} == {(JobState.COMPLETED, record.run)}


def test_its_run_stands_in_the_status(older):
    told = json.loads(succeeds(call_xclr("status", "--all", "--json", "--home", str(older), cwd=older)).stdout)
    assert [(each["recipe"], each["state"]) for each in told["runs"]] == [("smoke", "completed")]
