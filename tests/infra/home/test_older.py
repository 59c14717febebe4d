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
from xclr.store import Store


@pytest.fixture(scope="module")
def older(tmp_path_factory) -> Path:
    """The run's record, ledger and manifests."""
    home = tmp_path_factory.mktemp("older")
    with tarfile.open(Path(__file__).with_name("older.tar.gz")) as tar:
        tar.extractall(home, filter="data")
    return home


def test_its_run_is_planned_as_it_was(older):
    (record,), faults = scan_runs(older)
    assert faults == () and record.state == "completed"
    assert record.digests == tuple(stage.digest for stage in pipeline(record.recipe, Store(older)))


def test_its_manifests_say_of_each_stage_what_the_plan_says(older):
    (record,), _ = scan_runs(older)
    store = Store(older)
    for stage in pipeline(record.recipe, store):
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
