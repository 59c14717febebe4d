"""`xclr export`: what it says and writes, and faults in what was asked, each with the remedy."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.kit.command import call_xclr, fails, succeeds
from xclr.record import Record
from xclr.store import MANIFEST, write_atomically

FILES = ["README.md", "model.safetensors", "preprocessing.json", "preprocessing.py"]


def test_facts_are_told_as_json_and_the_same_again_is_no_fault(own_home, tmp_path):
    asked = ("export", "own", "--method", "clip", "--seed", "1", "-o", "out", "--json", "--home", str(own_home))
    for _ in range(2):
        told = json.loads(succeeds(call_xclr(*asked, cwd=tmp_path)).stdout)
        assert told == {
            "run": "own-1", "method": "clip", "graph": "pairs", "seed": 1,
            "format": "safetensors", "folder": str(tmp_path / "out"), "files": FILES,
        }  # fmt: skip
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == FILES
    card = (tmp_path / "out" / "README.md").read_text()
    assert "nor is the text tower" in card and "learned temperature" in card
    other = ("export", "own", "--method", "clip", "-o", "out", "--home", str(own_home))
    fails(call_xclr(*other, cwd=tmp_path), "holds another export", "--force")
    succeeds(call_xclr(*other, "--force", cwd=tmp_path))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["own"], ["networks of 3 methods", "clip (pairs), seed 0"]),
        (["own", "--method", "xcl"], ["no finished network of method xcl", "xclr (captions), seed 1"]),
        (["own", "--method", "xclr", "--seed", "7"], ["method xclr, seed 7", "xclr (captions), seed 1"]),
        (["own", "--method", "xclr", "--format", "onx"], ["no format 'onx'", "--format onnx"]),
        (["own", "--method", "xclr", "--format", "torchvision"], ["cannot hold resnet-mini", "safetensors, onnx"]),
        (["own", "--method", "xclr", "-o", "notes"], ["holds shopping.txt, which no export writes", "-o PATH"]),
        (["mine", "--method", "xclr"], ["no run 'mine'", "own"]),
    ],
)
def test_a_fault_in_what_was_typed(own_home, tmp_path, arguments, parts):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "shopping.txt").write_text("mine")
    fails(call_xclr("export", *arguments, "--home", str(own_home), cwd=tmp_path), *parts)
    assert [each.name for each in tmp_path.rglob("*")] == ["notes", "shopping.txt"]


def test_a_training_that_has_not_finished_is_told_from_one_that_there_is_not(own_home, tmp_path):
    home = shutil.copytree(own_home, tmp_path / "home")
    path = home / "runs" / "own-1.json"
    trainings = {each: json.loads(each.read_text()) for each in home.glob(f"artifacts/pretrain/*/{MANIFEST}")}
    for each, manifest in trainings.items():
        if manifest["config"]["objective"]["name"] == "clip":
            each.unlink()
    asked = ("export", "own", "--method", "clip", "--home", str(home))
    fails(
        call_xclr(*asked, cwd=tmp_path),
        "the training of clip in own-1 has not finished (completed)",
        "xclr retry own-1",
    )
    record = Record.model_validate_json(path.read_text())
    assert record.state == "completed"
    write_atomically(path, json.dumps(json.loads(path.read_text()) | {"state": "running"}))
    fails(call_xclr(*asked, cwd=tmp_path), "has not finished (running)", "xclr status")
