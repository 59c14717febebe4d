"""A damaged file is no input of anything, and what was made of it is found, removed and made again, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from infra.home.verify import found
from tests.kit.command import call_xclr, succeeds
from tests.kit.finished import finish, own_recipe
from xclr.errors import StoreError
from xclr.job import OUTCOMES, check_inputs, run_shard, run_stage
from xclr.pipeline import pipeline
from xclr.recipe import Recipe
from xclr.store import Store, only_writer
from xclr.training.spool import SPOOL


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> tuple[Path, Recipe]:
    """A finished run of two objectives."""
    folder = tmp_path_factory.mktemp("sound")
    recipe = own_recipe(folder, "a picture of a", evaluate={"suites": ["linear"]})
    finish(folder / "home", recipe, "own-1")
    return folder / "home", recipe


@pytest.fixture
def home(sound, tmp_path) -> Path:
    """A copy of it."""
    shutil.copytree(sound[0], tmp_path / "home", ignore=shutil.ignore_patterns("hashes"))
    return tmp_path / "home"


def flip(path: Path, *, time_stays: bool = False) -> bytes:
    """Turn one bit of a file, not of a table's footer, whose sizes and rows are as they were; returns what it was."""
    before, seen = path.read_bytes(), path.stat()
    after = bytearray(before)
    after[min(8, len(after) // 2)] ^= 1
    path.write_bytes(after)
    if time_stays:
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    return before


def files(home: Path) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Names and SHA-256 of the files of each artifact, but for the spool, which holds times."""
    store = Store(home)
    return {
        (each.kind, str(each.digest)): [
            (file.path, file.sha256) for file in store.manifest(each).files if file.path != SPOOL
        ]
        for each in found(home)
    }


def checkpoint_of(home: Path, recipe: Recipe):
    (stage, *_) = [each for each in pipeline(recipe, Store(home)) if each.name == "pretrain clip seed 0"]
    return Store(home).reference(stage.digest)


def test_no_stage_of_any_kind_reads_a_damaged_file(home, sound):
    store, told = Store(home), set()
    for stage in pipeline(sound[1], store):
        out = store.root / stage.kind.name / ("0" * 32)
        for role, artifact in stage.inputs.items():
            for entry in filter(lambda each: each.bytes, store.manifest(artifact).files):
                path = artifact.path / entry.path
                before = flip(path)
                for job in (run_stage, lambda *of: run_shard(*of, 0)) if stage.kind.pieces else (run_stage,):
                    with pytest.raises(StoreError, match="has changed since") as error:
                        job(stage, out)
                    assert error.value.message.startswith(f"{path} ") and "xclr verify --remove" in error.value.remedy
                path.write_bytes(before)
                told.add((stage.kind.name, role))
        assert not out.exists() or {each.name for each in out.iterdir()} <= {".lock", *OUTCOMES}
    assert {kind for kind, _ in told} >= {
        "images",
        "embeddings",
        "graph",
        "pretrain",
        "features",
        "suite",
        "comparison",
    }


def test_ranks_share_the_files_and_a_damaged_one_is_told_by_one_of_them(home, sound, monkeypatch):
    (stage, *_) = [each for each in pipeline(sound[1], Store(home)) if each.name == "pretrain clip seed 0"]
    monkeypatch.setenv("WORLD_SIZE", "3")
    for entry in Store(home).manifest(stage.inputs["images"]).files:
        path, tellers = stage.inputs["images"].path / entry.path, 0
        before = flip(path)
        for rank in range(3):
            monkeypatch.setenv("RANK", str(rank))
            try:
                check_inputs(stage)
            except StoreError:
                tellers += 1
        path.write_bytes(before)
        assert tellers == 1


def test_a_file_is_hashed_once_and_verify_sees_what_no_time_tells(home, sound):
    store, checkpoint = Store(home), checkpoint_of(home, sound[1])
    store.check(checkpoint)
    before = flip(checkpoint.path / "checkpoint.pt", time_stays=True)
    store.check(checkpoint)  # remembered by size and time, which are what they were
    with pytest.raises(StoreError, match=r"checkpoint\.pt has changed"):
        store.verify(checkpoint)
    with pytest.raises(StoreError, match=r"checkpoint\.pt has changed"):
        store.check(checkpoint)  # what verify saw is remembered too
    (checkpoint.path / "checkpoint.pt").write_bytes(before)
    store.check(checkpoint)


@pytest.mark.slow
def test_what_was_made_of_a_damaged_file_is_named_and_after_the_remedy_all_is_as_it_was(home, sound):
    recipe, checkpoint, before = sound[1], checkpoint_of(home, sound[1]), files(home)

    def verify(*options: str):
        return call_xclr("verify", *options, "--home", str(home), cwd=home)

    flip(checkpoint.path / "checkpoint.pt", time_stays=True)
    listed = json.loads(verify("--json").stdout)
    wrong = {(each["kind"], each["digest"]) for each in listed if each["fault"]}
    of_it = {(each["kind"], each["digest"]) for each in listed if each["made_of_wrong"]}
    assert wrong == {("pretrain", str(checkpoint.digest))}
    assert sorted(kind for kind, _ in of_it) == ["comparison", "features", "suite"]
    said = verify()
    assert said.returncode == 1 and "1 wrong, 3 made of it" in said.stdout
    assert all(f"of it {kind:<16}{digest}" in said.stdout for kind, digest in of_it)
    assert "xclr verify --remove" in said.stderr and "xclr retry own-1" in said.stderr
    assert files(home) == before

    with only_writer(checkpoint.path):  # somebody makes it just now
        said = verify("--remove")
    assert said.returncode == 1 and "3 removed" in said.stderr and "is being written" in said.stderr
    assert "1 removed" in succeeds(verify("--remove")).stderr
    assert set(before) - set(files(home)) == wrong | of_it
    finish(home, recipe, "own-2")
    assert files(home) == before
    assert "0 wrong" in succeeds(verify()).stdout
