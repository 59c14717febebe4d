"""The mission's own command on a real cluster: prefect deployment run xclr-full/cc12m --watch."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from infra.home.runs import read_runs
from infra.ledger import Book, JobState
from tests.kit import trees
from tests.kit.databases import give_databases
from tests.kit.polling import until
from tests.kit.prefect import ask
from tests.kit.servers import Served, known_to_mlflow, serving
from tests.kit.slurm import slurm, state_of
from tests.kit.worker import Prefect, client_environment, deployed
from xclr.pipeline import pipeline
from xclr.recipe import SUITES
from xclr.store import Store

pytestmark = pytest.mark.timeout(3600)
TOP1 = {
    "eval/imagenet/val_top1", "eval/real/val_top1", "eval/imagenet9/mixed_rand_top1", "eval/imagenet9/gap",
    "eval/objectnet/all_top1", "eval/objectnet/overlap_top1", "eval/mit-states/objects_top1",
    "eval/mit-states/attributes_top1", "eval/knn/val_top1", "eval/few-shot/010-percent_top1", "eval/finetune/val_top1",
}  # fmt: skip
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
THINGS = ("square", "disc", "stripe", "frame")


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, *args: object) -> None:
        """Nothing."""


@contextmanager
def website(folder: Path) -> Iterator[str]:
    """A folder on a port of the loopback interface."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def picture(seed: int) -> bytes:
    """A JPEG with some shapes."""
    rng = np.random.default_rng(seed)
    pixels = np.full((80, 96, 3), rng.integers(0, 256, 3), dtype=np.uint8)
    for _ in range(4):
        top, left = rng.integers(0, 60, 2)
        pixels[top : top + 20, left : left + 30] = rng.integers(0, 256, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


class Breadth(NamedTuple):
    """How much of the recipe is run."""

    pictures: int
    objectives: tuple[str, ...]
    suites: tuple[str, ...]

    def suites_of(self, objective: str) -> set[str]:
        """Those that fit a checkpoint: prompts and captions need a text tower."""
        return set(self.suites) - (set() if objective == "clip" else {"zero-shot", "retrieval"})


NARROW = Breadth(128, ("clip", "xclr"), ("imagenet", "zero-shot"))
PUBLISHED = {name for name, suite in SUITES.items() if not suite.own and not suite.annotated}
WHOLE = Breadth(256, ("simclr", "clip", "xclr"), tuple(sorted(PUBLISHED)))


def publish(folder: Path, address: str, pictures: int) -> None:
    """cc12m.tsv in the published format, more than is asked for, and its pictures, of which some are gone."""
    lines = []
    for row in range(pictures + 40):
        name = f"{row}.jpg"
        if row % 100:
            (folder / name).write_bytes(picture(row))
        caption = f"a {COLOURS[row % 8]} {THINGS[row % 4]} number {row} beside a {COLOURS[row // 8 % 8]} wall"
        lines.append(f"{address}/{name}\t{caption}\n")
    lines.insert(7, "not a line of cc12m\n")
    (folder / "cc12m.tsv").write_text("".join(lines))


@pytest.mark.parametrize("breadth", [NARROW, pytest.param(WHOLE, marks=pytest.mark.soak)], ids=["narrow", "whole"])
def test_the_missions_own_command(breadth, accounting, tmp_path, monkeypatch):
    home, site = tmp_path / "home", tmp_path / "site"
    site.mkdir()
    monkeypatch.setenv("XCLR_CLUSTER", "private")
    roots = json.dumps(trees.every(tmp_path / "data"))
    with website(site) as address, serving(give_databases(home)) as served:
        publish(site, address, breadth.pictures)
        overrides = [
            f"data.url={address}/cc12m.tsv", f"data.limit={breadth.pictures}", "train.image_size=64",
            "train.batch_size=32", "train.epochs=1", f"evaluate.roots={roots}", "evaluate.bootstrap=100",
            "evaluate.finetune={epochs: 1, batch_size: 16}", "evaluate.probe.epochs=2",
            f"objectives={json.dumps(breadth.objectives)}", f"evaluate.suites={json.dumps(breadth.suites)}",
            "embed.model=sentence-transformers/all-MiniLM-L6-v2", "embed.precision=float32",  # packaged, and no GPU
        ]  # fmt: skip
        with deployed(client_environment(served, home, tmp_path / "client")) as prefect:
            arguments = ["deployment", "run", "xclr-full/cc12m", "--param", f"overrides={json.dumps(overrides)}"]
            done = prefect(*arguments, "--watch", timeout=3000)
            assert done.returncode == 0, done.stdout
            check_jobs(home, breadth)
            with known_to_mlflow(served) as client:
                check_metrics(client, breadth)
            names = task_names(served, flow_run_of(done.stdout))
            assert any(re.fullmatch(r"pretrain xclr seed 0 \(Slurm job \d+\)", each) for each in names), names
            longer = json.dumps([*overrides, "name=longer", "objectives=[simclr]", "train.epochs=50"])
            check_cancel(prefect, home, longer)


def flow_run_of(said: str) -> str:
    """The id of the flow run that was started."""
    return re.search(r"UUID: (\S+)", said).group(1)


def check_cancel(prefect: Prefect, home: Path, overrides: str) -> None:
    """A run that is cancelled in Prefect ends its jobs."""
    started = prefect("deployment", "run", "xclr-full/cc12m", "--param", f"overrides={overrides}")
    assert started.returncode == 0, started.stdout
    entry = until(lambda: next((e for e in Book(home).read().entries if e.job and e.state is None and e.name), None))
    job = str(entry.job).removeprefix("slurm/")
    until(lambda: state_of(job) == "RUNNING")
    assert prefect("flow-run", "cancel", flow_run_of(started.stdout)).returncode == 0
    until(lambda: state_of(job) in {"CANCELLED", "COMPLETING"})
    until(lambda: read_runs(home)[-1].state == "cancelled")


def task_names(served: Served, flow_run: str) -> list[str]:
    """The task runs of a flow run."""
    body = {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": 200}
    return [each["name"] for each in ask(served, "/task_runs/filter", body)]


def check_jobs(home: Path, breadth: Breadth) -> None:
    """Every heavy stage was one job, eight ranks on one node train a ResNet-50, lost pictures are accounted for."""
    (record,) = read_runs(home)
    assert record.state == "completed"
    book, store = Book(home), Store(home)
    entries = {entry.stage: entry for entry in book.read().entries}
    for title in breadth.objectives:
        entry = entries[f"pretrain {title} seed 0"]
        assert entry.state is JobState.COMPLETED and entry.attempt == 1
        job = str(entry.job).removeprefix("slurm/")
        fields = "--format=JobID,NNodes,NTasks,AllocTRES"  # of sacct: the controller forgets a job after five minutes
        rows = slurm("sacct", "--noheader", "--parsable2", f"--jobs={job}", fields).splitlines()
        step = next(row.split("|") for row in rows if row.startswith(f"{job}.0|"))
        assert step[1:3] == ["1", "8"] and "gres/gpu=8" in step[3]
        for suite in breadth.suites_of(title):
            assert str(entries[f"{suite} {title} seed 0"].job).startswith("slurm/")
    planned = {stage.name: stage for stage in pipeline(record.recipe, store)}
    config = planned["pretrain xclr seed 0"].config
    assert (config.train.backbone, config.train.image_size, config.train.batch_size) == ("resnet50", 64, 32)
    stats, lost = store.manifest(store.reference(planned["images"].digest)).stats, -(-breadth.pictures // 100)
    assert (stats["rows"], stats["ok"], stats["http_4xx"]) == (breadth.pictures, breadth.pictures - lost, lost)


def check_metrics(client: MlflowClient, breadth: Breadth) -> None:
    """CLIP and X-CLR stand side by side, each with its training and its suites."""
    experiment = client.get_experiment_by_name("cc12m")
    runs = {run.data.tags.get("method"): run.data for run in client.search_runs([experiment.experiment_id])}
    for method in ("clip", "xclr"):
        metrics = runs[method].metrics
        assert {"train/loss", *(each for each in TOP1 if each.split("/")[1] in breadth.suites)} <= set(metrics)
        assert ("eval/zero-shot/val_top1" in metrics) is (method == "clip")
        assert metrics["usage/pretrain/gpu_hours"] > 0 and metrics["usage/pretrain/cpu_efficiency"] > 0
    assert 0.01 < runs["clip"].metrics["train/temperature"] < 1, "the learned scale is inside its limits"
