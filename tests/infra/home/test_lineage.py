"""From any score to the caption file: every link is there, and what is not, or is not as it was, is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from infra.home.lineage import GONE
from infra.home.runs import read_runs
from infra.home.stored import remove
from infra.lineage import artifact_of
from tests.kit.command import Said, call_xclr, fails, succeeds
from xclr.artifact import sha256_file
from xclr.store import Store


@pytest.fixture
def home(own_home, tmp_path) -> Path:
    """A copy of the HOME and of its table, which may be changed."""
    table = shutil.copy(own_home.parent / "own.parquet", tmp_path / "own.parquet")
    home = shutil.copytree(own_home, tmp_path / "home", ignore=shutil.ignore_patterns("hashes"))
    for stage in home.glob("artifacts/*/*/stage.json"):
        stage.write_text(stage.read_text().replace(str(own_home.parent / "own.parquet"), str(table)))
    return home


def ask(home: Path, *arguments: str) -> Said:
    return call_xclr("lineage", *arguments, "--home", str(home), cwd=home)


def chain(said: Said) -> dict[str, dict]:
    return {each["kind"]: each for each in json.loads(said.stdout)["chain"]}


def test_every_name_of_a_score_leads_to_the_caption_file(own_home):
    table = own_home.parent / "own.parquet"
    names = ("eval/linear/pictures_top1", "eval/linear/top1", "linear pictures top1", "linear", "EVAL/linear/top1/ci95")
    answers = [json.loads(succeeds(ask(own_home, name, "--json")).stdout) for name in names]
    assert all(each == answers[0] for each in answers)
    score, links = answers[0]["score"], {each["digest"]: each for each in answers[0]["chain"]}
    assert (score["method"], score["seed"], score["suite"]) == ("xclr", 0, "linear")
    assert not any(each["fault"] for each in links.values())
    kinds = {each["kind"]: each for each in links.values()}
    assert {*kinds} == {"suite", "features", "pretrain", "embeddings", "images", "captions"}
    assert score["checkpoint"] in kinds["suite"]["inputs"] and kinds["captions"]["rows"] == 80
    assert all(digest in links for each in links.values() for digest in each["inputs"])
    (source,) = kinds["captions"]["given"]
    assert (source["paths"], source["bytes"]) == ([str(table)], table.stat().st_size)
    assert source["sha256"][0] == sha256_file(table)
    said = succeeds(ask(own_home, "linear", "--method", "clip (pairs)", "--seed", "1"))
    assert "of clip (pairs), seed 1: " in said.stdout and "xclr (captions), seed 0" in said.stderr
    lines = said.stdout.splitlines()
    places = [next(at for at, line in enumerate(lines) if word in line) for word in ("suite", "pretrain", str(table))]
    assert places == sorted(places) and sha256_file(table) in lines[places[-1]]


def test_names_that_are_not_there_are_answered_with_the_nearest(own_home):
    fails(ask(own_home, "eval/linaer/pictures_top1"), "no score", "eval/linear/pictures_top1")
    fails(ask(own_home, "linear", "--method", "dino"), "no method 'dino'", "clip, clip (pairs)")
    fails(ask(own_home, "linear", "--seed", "7"), "no score of seed 7", "seed 0", "seed 1")
    fails(ask(own_home, "linear", "--run", "other"), "no run 'other'", "own")


def test_what_was_removed_or_changed_is_named(home):
    store, sound = Store(home), chain(succeeds(ask(home, "linear", "--json")))
    table = home.parent / "own.parquet"
    before = table.read_bytes()

    def wrong(*words: str) -> Said:
        said = ask(home, "linear")
        fails(said, *words)
        assert any("WRONG: " in line and words[-1] in line for line in said.stdout.splitlines())
        return said

    pq.write_table(pq.read_table(table).slice(1), table)
    wrong("source of the captions: ", f"{table} changed since")
    table.unlink()
    wrong("source of the captions: ", f"no table at {table}")
    table.write_bytes(before)
    checkpoint = Path(sound["pretrain"]["path"])
    kept = checkpoint.read_bytes()
    checkpoint.write_bytes(kept[:-1] + b"?")
    wrong("pretrain", f"{checkpoint} has changed")
    checkpoint.write_bytes(kept)
    succeeds(ask(home, "linear"))
    assert remove(home, artifact_of(store, sound["embeddings"]["digest"]))
    wrong(f"embeddings {sound['embeddings']['digest'][:8]}", "was removed")
    assert remove(home, artifact_of(store, sound["suite"]["digest"]))
    said = wrong("suite linear", "was removed")
    assert GONE in said.stdout and str(table) in said.stdout, "the rest of the chain is there"
    (home / "runs" / f"{read_runs(home)[0].run}.json").unlink()
    fails(ask(home, "linear"), "no run")
