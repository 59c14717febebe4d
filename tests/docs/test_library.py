"""docs/library.md does what it says: its blocks are one session over a run, and print what stands there."""

from __future__ import annotations

import re
import shlex
import tomllib
from contextlib import redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.kit.command import call_xclr, succeeds
from tests.kit.home import one_thread

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "docs" / "library.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(own_home, tmp_path, monkeypatch) -> Path:
    """Where the session begins: the run's table, some of its pictures, and one that is torn."""
    table = own_home.parent / "own.parquet"
    (tmp_path / "own.parquet").symlink_to(table)
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(pq.read_table(table)["image"].to_pylist()[:8]):
        (tmp_path / "pictures" / f"{number:03d}.png").write_bytes(picture["bytes"])
    (tmp_path / "pictures" / "torn.jpg").write_bytes(b"\xff\xd8")
    monkeypatch.setenv("XCLR_HOME", str(own_home))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_session_prints_what_the_page_says(folder):
    names: dict[str, object] = {}
    with one_thread():
        for (language, text), (after, promised) in pairwise([*BLOCKS, ("", "")]):
            if language == "python":
                printed = StringIO()
                with redirect_stdout(printed):
                    exec(compile(text, "docs/library.md", "exec"), names)
                assert printed.getvalue() == (promised if after == "text" else ""), text


def test_its_commands_run(folder):
    lines = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("xclr ")]
    assert len(commands) == 2
    for _, *arguments in commands:
        succeeds(call_xclr(*arguments, cwd=folder))
    assert pq.read_table(folder / "vectors.parquet").num_rows == 8
    assert pq.read_table(folder / "table.parquet").column_names == ["file", "row", "kind", "vector"]


def test_the_extras_that_it_names_hold_the_packages_that_it_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    page = (ROOT / "docs" / "library.md").read_text()
    assert {*re.findall(r'pip install "xclr\[(\w+)\]"', page)} == extras.keys() - {"dev", "team"}, (
        "of those for who reads or runs"
    )
    for named, held in (
        (["torch", "torchvision", "pyarrow", "pillow", "pydantic"], project["dependencies"]),
        (["scikit-learn", "scipy", "timm", "open_clip_torch"], extras["eval"]),
        (["prefect", "mlflow", "submitit", "sentence-transformers", "xclr[eval]"], extras["pipeline"]),
    ):
        assert set(named) <= {re.split(r"[>=<]", each.replace("mlflow[auth]", "mlflow"))[0] for each in held}
