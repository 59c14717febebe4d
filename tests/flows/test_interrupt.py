"""Ctrl-C: once leaves the jobs running, twice ends them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from infra.ledger import Book, Entry, find_process
from infra.runs import read_runs
from tests.infra.conftest import TINY

pytestmark = pytest.mark.slow


def start(home: Path, recipe: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "flows.cli", "run", str(recipe), "--until", "pretrain", "--home", str(home)]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)


def job_of(home: Path) -> Entry:
    """The training job, once it is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for entry in Book(home).read().entries:
            if entry.stage.startswith("pretrain simclr") and entry.log is not None and find_process(entry.job):
                return entry
        time.sleep(0.1)
    raise AssertionError("no training job came about")


def test_the_first_ctrl_c_leaves_the_job_and_the_second_ends_it(tmp_path):
    recipe = tmp_path / "long.yaml"
    recipe.write_text(yaml.safe_dump(TINY | {"name": "long", "train": TINY["train"] | {"epochs": 5000}}))
    home = tmp_path / "home"
    process = start(home, recipe)
    entry = job_of(home)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Ctrl-C once more" in said
    assert "Traceback" not in said
    assert find_process(entry.job) is not None
    assert read_runs(home)[-1].state == "failed"

    again = start(home, recipe)
    for line in again.stderr:  # it attaches: the stages before are hits
        if "images hit" in line:
            break
    again.send_signal(signal.SIGINT)
    for line in again.stderr:
        if "Ctrl-C once more" in line:
            break
    again.send_signal(signal.SIGINT)
    _, said = again.communicate(timeout=60)
    assert "1 job ended" in said
    assert find_process(entry.job) is None
    assert Book(home).latest(entry.digest).attempt == 1
