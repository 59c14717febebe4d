"""Pictures of a local server, 10% gone and 5% slow: ours against img2dataset, one host, 64 connections, one decoder.

img2dataset lives in an environment of its own (.bench/img2dataset), because its pins are not ours. Both sides are whole
programs; what they use for a list of 40 pictures is taken off, which leaves out their start. CPU time is that of a
program and its processes; the server is another process and is not counted.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from tests.bench.measure import Figure
from xclr.artifact import Artifact, Digest
from xclr.captions import run as run_captions
from xclr.captions.stages import CAPTIONS, CaptionsConfig
from xclr.images import run as run_images
from xclr.images.stages import IMAGES, ImagesConfig
from xclr.recipe import DataConfig, DownloadConfig
from xclr.stage import Stage

VERSION = "img2dataset==1.47.0"
ROOT = Path(__file__).parents[2]
PEER = ROOT / ".bench" / "img2dataset"
SERVER = Path(__file__).with_name("pictures.py")
ROUNDS, FEW = 3, 40
EDGE, THREADS = 256, 64
CORPORA = {  # size, rows, bars of CPU and wall time
    "500 x 375": ((500, 375), 3000, 0.9, 1.0), "1600 x 1200": ((1600, 1200), 600, 1 / 1.3, 1 / 1.3),
}  # fmt: skip


class Used(NamedTuple):
    """CPU and wall seconds of a program, and how many pictures it stored."""

    cpu_s: float
    wall_s: float
    stored: int


def installed() -> Path:
    """The peer's Python."""
    python = PEER / "bin" / "python"
    if not (PEER / "done").exists():
        venv.create(PEER, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", VERSION], check=True)
        (PEER / "done").touch()
    return python


@contextmanager
def served(pictures: list[Path]) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, str(SERVER), *map(str, pictures)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


def measured(command: list[str], count: Callable[[], int]) -> Used:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_ALBUMENTATIONS_UPDATE": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Used(used, time.perf_counter() - began, count())


def ours(table: Path, out: Path) -> Used:
    def count() -> int:
        return pq.read_table(out / "images" / "images.parquet")["status"].to_pylist().count("ok")

    return measured([sys.executable, "-m", "tests.bench.download", str(table), str(out)], count)


def theirs(table: Path, out: Path) -> Used:
    options = {
        "url_list": table.with_suffix(".header.tsv"), "input_format": "tsv", "url_col": "url", "caption_col": "caption",
        "output_format": "webdataset", "output_folder": out, "processes_count": 1, "thread_count": THREADS,
        "image_size": EDGE, "resize_mode": "keep_ratio", "resize_only_if_bigger": True, "encode_quality": 95,
        "number_sample_per_shard": 10_000, "enable_wandb": False, "timeout": 20,
    }  # fmt: skip
    command = [str(PEER / "bin" / "img2dataset"), *(f"--{name}={value}" for name, value in options.items())]

    def count() -> int:
        return sum(int(json.loads(path.read_text())["successes"]) for path in out.glob("*_stats.json"))

    return measured(command, count)


def write_table(address: str, rows: int, path: Path) -> Path:
    lines = [f"{address}/{row}.jpg\ta picture of thing {row}\n" for row in range(rows)]
    path.write_text("".join(lines))
    path.with_suffix(".header.tsv").write_text("url\tcaption\n" + "".join(lines))
    return path


def pictures_of(size: tuple[int, int], folder: Path) -> list[Path]:
    """JPEGs with the detail of photographs."""
    from tests.bench.loader import jpegs

    paths = [folder / f"{index}.jpg" for index in range(8)]
    for path, body in zip(paths, jpegs(len(paths), size), strict=True):
        path.write_bytes(body)
    return paths


def figures() -> Iterator[Figure]:
    installed()
    for name, (size, rows, cpu_bar, wall_bar) in CORPORA.items():
        with tempfile.TemporaryDirectory() as root:
            folder = Path(root)
            with served(pictures_of(size, folder)) as address:
                tables = [write_table(address, number, folder / f"{number}.tsv") for number in (FEW, rows)]
                found: dict[str, list[tuple[Used, Used]]] = {"ours": [], "theirs": []}
                for turn in range(ROUNDS):
                    for who, side in (("ours", ours), ("theirs", theirs)):
                        few, many = (side(table, folder / f"{who}{turn}{table.stem}") for table in tables)
                        found[who].append((few, many))
                stored = {many.stored for used in found.values() for _, many in used}
                assert stored == {rows - rows // 10}, f"both store the same pictures: {stored}"
                cpu = {
                    who: statistics.median(many.cpu_s - few.cpu_s for few, many in used) for who, used in found.items()
                }
                wall = {
                    who: statistics.median(many.wall_s - few.wall_s for few, many in used)
                    for who, used in found.items()
                }
                yield Figure(f"download, {rows} of {name}, CPU of both programs", cpu["ours"], cpu["theirs"], cpu_bar)
                yield Figure(
                    f"download, {rows} of {name}, beside their server", wall["ours"], wall["theirs"], wall_bar, "s"
                )


def download(table: Path, out: Path) -> None:
    """The stages captions and images of a table."""
    made = [Artifact(kind, Digest(kind, "0" * 32), out / kind) for kind in ("captions", "images")]
    for each in made:
        each.path.mkdir(parents=True)
    data = DataConfig(
        source="cc12m", path=table, shortest_edge=EDGE, allow_hosts=("127.0.0.1:*",),
        download=DownloadConfig(connections=THREADS, per_host=THREADS, workers=1),
    )  # fmt: skip
    config = CaptionsConfig(data=data, sha256=())
    run_captions(Stage(CAPTIONS, "captions", config), made[0].path, lambda *seen: None)
    images = Stage(IMAGES, "images", ImagesConfig(data=data, sha256=()), {"captions": made[0]})
    run_images(images, made[1].path, lambda *seen: None)


if __name__ == "__main__":
    download(Path(sys.argv[1]), Path(sys.argv[2]))
