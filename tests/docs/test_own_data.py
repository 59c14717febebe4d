"""docs/own-data.md does what it says: its files are written, its commands typed in order, its output looked for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest

from infra import servers
from tests.kit.databases import give_databases
from tests.kit.jobs import few_jobs

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "own-data.md"
BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MADE = {"shapes.csv"}  # shown before it is written by the page's own script


class Block(NamedTuple):
    """A fenced block: bash, text, or a language and the file that it is."""

    language: str
    name: str
    text: str


def environment(folder: Path) -> dict[str, str]:
    """As after `source .venv/bin/activate`, with this tree's packages, where no network becomes a model of MLflow."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("XCLR_", "PREFECT_", "MLFLOW_"))}
    return {**mine, "PATH": path, "PYTHONPATH": str(ROOT), "XCLR_CLUSTER": few_jobs(folder.parent)}


def typed(command: str, folder: Path, code: int) -> str:
    """What a shell prints when the commands are typed there."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    return (done.stdout + done.stderr).replace(str(folder), "/home/me")


@pytest.fixture(scope="module")
def followed(tmp_path_factory) -> tuple[Path, list[tuple[str, str, str]]]:
    """A folder in which the page was followed; each command, what the page says it prints, what it printed."""
    folder = tmp_path_factory.mktemp("own") / "me"
    folder.mkdir()
    give_databases(folder / ".xclr")
    with servers.using(servers.PREFECT, folder / ".xclr" / "state"):  # else each `xclr run` starts one
        return folder, follow(folder)


def follow(folder: Path) -> list[tuple[str, str, str]]:
    """Write the page's files and type its commands in a folder."""
    blocks = [Block(*found) for found in BLOCK.findall(PAGE.read_text())]
    seen = []
    for block, after in zip(blocks, [*blocks[1:], Block("", "", "")], strict=True):
        if block.language == "bash":
            promised = after.text if after.language == "text" else ""
            seen.append((block.text, promised, typed(block.text, folder, int(promised.startswith("xclr: ")))))
        elif block.name and block.name not in MADE:
            (folder / block.name).write_text(block.text)
    return seen


def test_the_page_shows_the_table_that_its_script_writes(followed):
    folder, _ = followed
    (shown,) = [text for _, name, text in BLOCK.findall(PAGE.read_text()) if name == "shapes.csv"]
    assert (folder / "shapes.csv").read_text().startswith(shown)


def test_every_command_prints_what_the_page_says(followed):
    _, seen = followed
    assert sum(bool(promised) for _, promised, _ in seen) >= 7
    for command, promised, printed in seen:
        words = " ".join(printed.replace("┃", "│").split())
        for line in promised.splitlines():
            assert " ".join(line.split()) in words, f"{command} does not print {line!r} but:\n{printed}"


def test_the_comparison_has_every_method_on_the_held_out_pictures(followed):
    _, seen = followed
    (printed,) = [printed for command, _, printed in seen if command == "xclr compare --json\n"]
    scores = json.loads(printed)
    top1 = {row["method"]: row for row in scores if (row["suite"], row["metric"]) == ("linear", "top1")}
    assert set(top1) == {"random", "simclr", "supcon", "clip", "xclr"}
    assert {row["split"] for row in top1.values()} == {"pictures"}
    assert all(0 <= row["value"] <= 1 and 20 < row["n"] < 60 for row in top1.values())


def test_every_picture_of_the_table_and_of_the_folders_was_packed(followed):
    folder, _ = followed
    tables = [pq.read_table(path) for path in folder.glob(".xclr/artifacts/images/*/images.parquet")]
    assert [table["status"].to_pylist() for table in tables] == [["ok"] * 400] * 2
    captions = [pq.read_table(path) for path in folder.glob(".xclr/artifacts/captions/*/captions.parquet")]
    assert sorted(len(set(table["caption"].to_pylist())) for table in captions) == [15, 30]
