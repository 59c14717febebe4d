"""The command `xclr embed` over a finished run."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.kit.command import Said, call_xclr

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(own_home, tmp_path) -> Path:
    """A folder with pictures of the run, and one file that is none."""
    rows = pq.read_table(own_home.parent / "own.parquet")["image"].to_pylist()[:6]
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    for number, picture in enumerate(rows):
        (tmp_path / "pictures" / ("deep" if number % 2 else "") / f"{number}.png").write_bytes(picture["bytes"])
    (tmp_path / "pictures" / "torn.jpg").write_bytes(b"\xff\xd8 torn")
    return tmp_path


def embed(folder: Path, home: Path, *arguments: str, code: int = 0) -> Said:
    done = call_xclr("embed", *arguments, "--home", str(home), cwd=folder)
    assert done.returncode == code, done.stderr
    return done


def test_a_folder_becomes_a_file_of_vectors_and_what_cannot_be_read_is_named(own_home, folder):
    done = embed(folder, own_home, "own", "pictures", "-o", "out.parquet", "--json")
    assert json.loads(done.stdout) == {"rows": 6, "unreadable": 1, "dim": 32, "out": str(folder / "out.parquet")}
    assert "torn.jpg" in done.stderr
    table = pq.read_table(folder / "out.parquet")
    assert table["file"].to_pylist() == ["0.png", "2.png", "4.png", "deep/1.png", "deep/3.png", "deep/5.png"]
    about = json.loads(table.schema.metadata[b"about"])
    assert (about["run"], about["method"], about["seed"]) == ("own-1", "xclr", 0)


def test_seed_method_and_device_are_chosen(own_home, folder):
    arguments = ("own", "pictures", "--method", "clip", "--seed", "1", "--device", "cpu", "-o")
    assert "out.parquet (6 of 32 numbers)" in embed(folder, own_home, *arguments, "out.parquet").stdout
    about = json.loads(pq.read_schema(folder / "out.parquet").metadata[b"about"])
    assert (about["method"], about["seed"]) == ("clip", 1)
    refused = embed(folder, own_home, "own", "pictures", "-o", "out.parquet", code=1)
    assert "holds something else" in refused.stderr and "--force" in refused.stderr
    embed(folder, own_home, "own", "pictures", "-o", "out.parquet", "--force")


@pytest.mark.parametrize(
    ("arguments", "told", "remedy"),
    [
        (("own", "empty"), "holds no pictures", "pictures end in"),
        (("own", "nowhere"), "is not there", "name a folder"),
        (("nothing", "pictures"), "no run 'nothing'", "there are"),
        (("own", "pictures", "--method", "simclr"), "no finished network of method simclr", "xclr (captions), seed 0"),
        (("own", "pictures", "--device", "warp"), "--device warp is not there", "--device cpu"),
        (("own", "pictures", "--id-column", "id"), "is no table", "leave that option out"),
    ],
)
def test_what_cannot_be_is_told_with_a_remedy_before_anything_is_written(own_home, folder, arguments, told, remedy):
    (folder / "empty").mkdir()
    done = embed(folder, own_home, *arguments, "-o", "out.parquet", code=1)
    first, second = done.stderr.strip().splitlines()
    assert told in first and remedy in second
    assert {path.name for path in folder.iterdir()} == {"pictures", "empty"}
