"""docs/extending.md does what it says: its files go into a copy of the packages, and its recipe is run there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"^```(\w+) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220), "white": (240, 240, 240)}
ANIMALS = ("cat", "cow", "dog", "fox")
MAKE = """
import json, subprocess
from datetime import UTC, datetime
from pathlib import Path
from infra.executors.executor import Attempt, Submission, executor_named
from infra.cluster import load_cluster
from infra.ledger import Entry
from infra.processes import now, this_process
from xclr.artifact import Manifest
from xclr.job import RESULT, Result, run_stage
from xclr.pipeline import pipeline
from xclr.recipe import load_recipe
from xclr.report.tables import GROUPS
from xclr.store import Store

def commit(stage, out):
    result = Result.model_validate_json((out / RESULT).read_text())
    inputs = tuple(each.digest for each in stage.inputs.values())
    about = dict(kind=stage.kind.name, digest=stage.digest, inputs=inputs, config=stage.identity, code=stage.kind.code)
    about |= dict(files=result.files, stats=result.stats, created=datetime.now(UTC).isoformat())
    store.commit(store.reference(stage.digest), Manifest(**about))

def queue(stage, out):
    resources = load_cluster("queued.yaml").resources_of(stage)
    queued = executor_named(resources.executor)
    entry = Entry(digest=stage.digest, kind=stage.kind.name, stage=stage.name, run="run", attempt=1,
                  owner=this_process(), claimed=now(), name=queued.draw_name(stage.name))
    (out / "stage.json").write_text(stage.to_json())
    submission = Submission((Attempt(entry, stage, out),), resources, lambda: Path.cwd(), "", 0)
    (entry,) = queued.submit(submission)
    told = [queued.call(entry.job), queued.state(entry, out)]
    subprocess.run(["sh", *store.home.glob("queue/*.sh")], check=True)
    told.append(queued.state(entry, out))
    return told

store = Store(Path("home"))
store.check_writable()
found = {"stats": {}, "columns": [each.heading for group in GROUPS.values() for each in group]}
for stage in pipeline(load_recipe("notes.yaml"), store):
    out = store.begin(stage.digest)
    if stage.kind.name == "lengths":
        found["queued"] = queue(stage, out)
    else:
        run_stage(stage, out)
    commit(stage, out)
    found["stats"][stage.name] = store.manifest(store.reference(stage.digest)).stats
print(json.dumps(found))
"""


def apply(folder: Path) -> set[str]:
    """Write the page's files below a folder and add its lines; returns the files."""
    blocks = BLOCK.findall(PAGE.read_text())
    for language, name, text in blocks:
        path = folder / name
        if language != "diff":
            assert not path.exists(), name
            path.write_text(text)
            continue
        lines = text.splitlines(keepends=True)
        before, after = ("".join(line[1:] or "\n" for line in lines if line[0] != sign) for sign in "+-")
        assert path.read_text().count(before) == 1, f"{name} does not hold, once:\n{before}"
        path.write_text(path.read_text().replace(before, after))
    return {name for _, name, _ in blocks}


def draw(folder: Path) -> None:
    """Captioned pictures, and a vector for each word of the captions."""
    (folder / "pictures").mkdir()
    (folder / "vectors").mkdir()
    for animal in ANIMALS:
        for number, (colour, value) in enumerate(list(COLOURS.items()) * 4):
            path = folder / "pictures" / f"{animal}-{number}.png"
            Image.new("RGB", (24, 24 + 2 * number), value).save(path)
            path.with_suffix(".txt").write_text(f"a {colour} {animal}\n")
    words = dict(zip([*COLOURS, *ANIMALS], np.eye(8).tolist(), strict=True))
    (folder / "vectors" / "words.json").write_text(json.dumps(words))


def run(folder: Path, *command: str) -> str:
    """What a command says in the folder, with the copied packages."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("XCLR_", "PREFECT_", "MLFLOW_"))}
    done = subprocess.run(
        command, cwd=folder, env=mine | {"PYTHONPATH": str(folder), "XCLR_HOME": str(folder / "home")},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy of the packages with all that the page adds, and data for its recipe."""
    folder = tmp_path_factory.mktemp("extended")
    for package in ("flows", "infra", "tasks", "xclr"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.parquet"))
    files = apply(folder)
    assert {name for name in files if name.startswith("infra")} == {
        "infra/executors/executor.py",
        "infra/executors/queued.py",
    }
    draw(folder)
    return folder


@pytest.fixture(scope="module")
def told(extended) -> dict[str, Any]:
    """What the recipe's outputs say, made in one process, the captions' lengths as a queued job."""
    return json.loads(run(extended, sys.executable, "-c", MAKE).splitlines()[-1])


def test_the_sources_captions_and_pictures_are_read(told):
    captions, images = told["stats"]["captions"], told["stats"]["images"]
    assert (captions["rows"], captions["distinct"], images["ok"]) == (64, 16, 64)
    assert captions["train"] + captions["pictures"] == 64 and captions["pictures"] > 4


def test_the_encoders_vectors_are_the_graphs(told):
    assert told["stats"]["embeddings"] == {
        "rows": 64, "distinct": 16, "model": "vectors", "dim": 8, "precision": "float32",
    }  # fmt: skip


def test_the_objective_is_trained_and_the_suite_judges_every_network(told):
    methods = ("random", "xclr", "smoothed share=0.2")
    assert told["stats"]["pretrain smoothed share=0.2 seed 0"]["step"] > 0
    assert all(0 <= told["stats"][f"centroid {method} seed 0"]["pictures_top1"] <= 1 for method in methods)
    assert "nearest mean" in told["columns"]


def test_the_stage_kind_was_made_by_a_job_of_the_backend(told):
    assert told["stats"]["lengths"] == {"mean": 3.0}
    call, *states = told["queued"]
    assert call.startswith("queue job ") and states == ["pending", "completed"]


def test_a_name_that_is_nearly_one_of_them_is_told_the_right_one(extended):
    code = "from xclr.recipe import load_recipe; load_recipe('notes.yaml', ['data.source=note'])"
    said = run(extended, sys.executable, "-c", f"try:\n {code}\nexcept Exception as error:\n print(error)")
    assert "did you mean notes?" in said


def test_the_plan_has_them(extended):
    plan = json.loads(run(extended, sys.executable, "-m", "xclr", "plan", "notes.yaml", "--json"))
    assert {"lengths", "pretrain smoothed share=0.2 seed 0"} <= {each["stage"] for each in plan}
