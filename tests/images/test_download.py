"""The images stage over addresses and files: all rows, whatever happens, and no finished shard twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.images.pictures import PNG, pack
from tests.images.server import serving
from xclr import schema
from xclr.artifact import Artifact, Digest
from xclr.captions import run as run_captions
from xclr.images import read_pictures
from xclr.recipe import DataConfig
from xclr.stages import CaptionsConfig, ImagesConfig, Stage

CHILD = """
import sys
from pathlib import Path
from xclr.images import pack
from xclr.stages import Stage
pack.SHARD_ROWS = 40
pack.run(Stage.from_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), lambda done, total: None)
"""


def table_of(pictures, folder):
    """A table of addresses and paths; the same pictures again and again would have the same captions."""
    path = folder / "mine.parquet"
    captions = [f"picture {row}" for row in range(len(pictures))]
    pq.write_table(pa.table({"caption": captions, "image": pa.array(pictures, pa.string())}), path)
    return path


def rows_of(images):
    return schema.read(images.path / "images.parquet", schema.IMAGES).to_pylist()


def test_addresses_and_paths_become_rows_with_their_statuses(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(PNG)
    (tmp_path / "photos" / "b.png").write_bytes(b"not a picture")
    with serving() as server:
        addresses = [f"{server.url}{path}" for path in ("/ok.png", "/404", "/500", "/robots")]
        values = [*addresses, "photos/a.png", "photos/b.png", None, "", "http://127.0.0.1:1/private.png"]
        data = DataConfig(source="table", path=table_of(values, tmp_path), allow_hosts=(server.place,))
        images, produced = pack(data, tmp_path / "out")
    rows = rows_of(images)
    assert [row["status"] for row in rows] == [
        "ok", "http_4xx", "http_5xx", "robots", "ok", "decode", "decode", "decode", "blocked",
    ]  # fmt: skip
    assert [row["http"] for row in rows[:4]] == [200, 404, 500, 200]
    assert [row["attempt"] for row in rows[:4]] == [1, 1, 2, 1]
    assert produced.stats == {"rows": 9, "blocked": 1, "decode": 3, "http_4xx": 1, "http_5xx": 1, "ok": 2, "robots": 1}
    captions = schema.read(tmp_path / "out" / "captions" / "captions.parquet", schema.CAPTIONS)
    assert captions["url"].to_pylist()[:5] == [*addresses, None]
    assert read_pictures(images.path, [0, 4], 16).shape == (2, 4, 16, 16)


@pytest.mark.slow
def test_a_killed_stage_asks_for_no_picture_of_a_finished_shard_again(tmp_path):
    with serving() as server:
        paths = [f"/{row}.png" for row in range(100)]
        paths[60] = "/hang/60"
        table = table_of([server.url + path for path in paths], tmp_path)
        data = DataConfig(source="table", path=table, allow_hosts=(server.place,))
        captions, images = (Artifact(kind, Digest(kind, "0" * 32), tmp_path / kind) for kind in ("captions", "images"))
        for each in (captions, images):
            each.path.mkdir()
        run_captions(
            Stage("captions", "captions", CaptionsConfig(data=data, sha256=())), captions.path, lambda done, total: None
        )
        stage = Stage("images", "images", ImagesConfig(data=data, sha256=()), {"captions": captions})
        (tmp_path / "stage.json").write_text(stage.to_json())
        child = [sys.executable, "-c", CHILD, str(tmp_path / "stage.json"), str(images.path)]
        process = subprocess.Popen(child)
        deadline = time.monotonic() + 60
        while not (server.asked["/hang/60"] and (images.path / "parts" / "shard-00000.tar.parquet").exists()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (images.path / "images.parquet").exists()
        subprocess.run(child, check=True, timeout=120)
        assert [server.asked[path] for path in paths[:40]] == [1] * 40
        assert server.asked["/hang/60"] == 2
    rows = rows_of(images)
    assert [row["row_id"] for row in rows] == list(range(100))
    assert {row["status"] for row in rows} == {"ok"}
    assert [row["shard"] for row in rows] == [row // 40 for row in range(100)]
    assert read_pictures(images.path, list(range(100)), 8).shape[0] == 100
