"""What MLflow holds of a run: every file of every stage is there, or named with its size and hash."""

from __future__ import annotations

import json
import math
import re
import shutil
from importlib import metadata
from pathlib import Path

import pytest

from infra.cluster import Tracking
from infra.tracking.files import LISTED, SCORES, divided, joined_tables, page_uploads, pages_of
from infra.tracking.tracker import TABLES
from infra.tracking.versions import GIT_COMMIT, ROOT, code_tags
from tests.infra.tracking.conftest import LIMIT_MB
from xclr import schema
from xclr.artifact import FileEntry, sha256_file
from xclr.owncode import commit_of
from xclr.pipeline import pipeline
from xclr.recipe import load_recipe
from xclr.stage import Stage
from xclr.store import Store


def files_of(run) -> Path:
    """The folder in which MLflow has a run's files."""
    return Path(run.info.artifact_uri.removeprefix("file://"))


def stages(tracked) -> list[Stage]:
    """The stages of the run that are there."""
    store = Store(tracked.home)
    return [stage for stage in pipeline(tracked.record.recipe, store) if store.find(stage.digest)]


def rows(path: Path) -> list[dict[str, object]]:
    """The rows of a table as MLflow has it."""
    table = json.loads(path.read_text())
    return [dict(zip(table["columns"], each, strict=True)) for each in table["data"]]


@pytest.mark.slow
def test_every_file_of_every_stage_is_copied_or_named_with_its_size_and_hash(tracked):
    store, runs = Store(tracked.home), tracked.runs()
    copies, named = 0, 0
    for stage in stages(tracked):
        artifact = store.reference(stage.digest)
        there = files_of(runs[stage.network or ""])
        digests = {path: json.loads(path.read_text())["digest"] for path in there.glob("*/manifest.json")}
        (manifest,) = (path for path, digest in digests.items() if digest == stage.digest)
        listed = manifest.parent / LISTED
        references = {each["path"]: each for each in (rows(listed) if listed.exists() else ())}
        for entry in store.manifest(artifact).files:
            if entry.bytes > LIMIT_MB * 1e6:
                reference = references.pop(str(artifact.path / entry.path))
                assert (reference["bytes"], reference["sha256"]) == (entry.bytes, entry.sha256)
                named += 1
            else:
                assert sha256_file(manifest.parent / entry.path) == entry.sha256
                copies += 1
        assert not references
    assert copies and named


@pytest.mark.slow
def test_scores_are_tables_and_lie_where_compared_runs_have_them(tracked):
    runs = tracked.runs()
    networks = [each for digest, each in runs.items() if digest]
    assert len(networks) == 6
    for run in networks:
        tables = {each["path"]: each["type"] for each in json.loads(run.data.tags[TABLES])}
        assert tables[f"linear/{SCORES}"] == "table"
        found = rows(files_of(run) / "linear" / SCORES)
        assert {each["checkpoint"] for each in found} == {run.data.tags["digest"]}
        assert list(found[0])[:4] == ["suite", "split", "metric", "value"], "what fits beside the list of files"
        assert (files_of(run) / "linear" / "predictions.parquet").exists()
    compared = rows(files_of(runs[""]) / "comparison" / SCORES)
    scores = Store(tracked.home).folder("comparison", tracked.record.scores) / "scores.parquet"
    assert len(compared) == schema.read(scores, schema.SCORES).num_rows


@pytest.mark.slow
def test_a_run_has_the_recipe_the_versions_and_the_pages(tracked, tmp_path):
    (tmp_path / "own.parquet").touch()
    for digest, run in tracked.runs().items():
        folder = files_of(run)
        recipe = load_recipe(str(shutil.copy(folder / "recipe.yaml", tmp_path)))
        assert recipe.model_copy(update={"data": tracked.record.recipe.data}) == tracked.record.recipe
        versions = (folder / "versions.txt").read_text().splitlines()
        assert f"torch=={metadata.version('torch')}" in versions and versions[0].startswith("# Python 3.")
        if digest:
            assert (folder / "compare.html").read_text() == "<p>the page"
            page = (folder / "graph" / "graph.html").exists()
            (reference,) = [] if page else rows(folder / LISTED)
            assert reference["path"].endswith("/graph.html")


@pytest.mark.slow
def test_telling_again_changes_nothing(tracked):
    def state() -> object:
        files = (tracked.home / "state" / "mlflow-artifacts").rglob("*")
        runs = {digest: (dict(each.data.tags), dict(each.data.metrics)) for digest, each in tracked.runs().items()}
        return runs, {path: path.stat().st_mtime_ns for path in files if path.is_file()}

    before = state()
    tracked.catch_up()
    assert state() == before


@pytest.mark.parametrize("limit", [0, 1, 1.000001, 5e6, math.inf])
def test_a_file_is_copied_up_to_the_limit_and_no_other(limit):
    entries = [FileEntry(path=str(size), bytes=size, sha256="") for size in (0, 10**6, 1, 10**13, 10**6 + 1)]
    copied, named = divided(entries, limit)
    assert sorted((*copied, *named), key=entries.index) == entries
    assert all(each.bytes <= limit * 1e6 for each in copied) and all(each.bytes > limit * 1e6 for each in named)


def test_tables_are_listed_once_beside_those_that_are_there():
    once = joined_tables('[{"path": "table.json", "type": "table"}]', ["a/scores.json"])
    assert [each["path"] for each in json.loads(once)] == ["table.json", "a/scores.json"]
    assert joined_tables(once, ["a/scores.json", "table.json"]) == once


def test_pages_that_are_too_large_are_named(tmp_path):
    page = tmp_path / "compare-x.html"
    page.write_text("<p>" * 1000)
    pages = pages_of([], Store(tmp_path), "0" * 32, page)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (large,) = page_uploads(pages, Tracking(copy_up_to_mb=0.001), scratch)
    assert rows(large.path) == [{"path": str(page), "bytes": 3000, "sha256": sha256_file(page)}]
    (small,) = page_uploads(pages, Tracking(), scratch)
    assert (small.name, small.path.read_text()) == ("compare.html", page.read_text())


def test_the_commit_is_that_of_the_codes_own_repository_alone(tmp_path):
    assert commit_of(tmp_path) is None and commit_of(ROOT / "xclr") is None
    (tmp_path / ".git").mkdir()
    assert commit_of(tmp_path) is None, "what is broken is none"
    tags = code_tags()
    assert ".".join(tags["xclr.version"].split(".")[:2]).replace(".", "").isdecimal()
    assert GIT_COMMIT not in tags or re.fullmatch("[0-9a-f]{40}", tags[GIT_COMMIT])
