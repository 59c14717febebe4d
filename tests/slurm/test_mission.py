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

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from infra.home.runs import read_runs
from infra.ledger import Book, JobState
from tests.conftest import Served, serving
from tests.evaluation.datasets import trees
from tests.flows.test_deployments import api, flow_run_of
from tests.flows.worker import Prefect, client_environment, deployed
from tests.infra.test_stage import until
from tests.slurm.conftest import slurm, state_of
from xclr.pipeline import pipeline
from xclr.recipe import SUITES
from xclr.store import Store

pytestmark = pytest.mark.timeout(1800)
ROWS, LIMIT = 300, 256
TOP1 = {
    "eval/imagenet/val_top1", "eval/real/val_top1", "eval/imagenet9/mixed_rand_top1", "eval/imagenet9/gap_gap",
    "eval/objectnet/all_top1", "eval/objectnet/overlap_top1", "eval/mit-states/objects_top1",
    "eval/mit-states/attributes_top1", "eval/knn/val_top1", "eval/few-shot/10-percent_top1", "eval/finetune/val_top1",
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


def publish(folder: Path, address: str) -> None:
    """cc12m.tsv in the published format, and its pictures, of which some are gone."""
    lines = []
    for row in range(ROWS):
        name = f"{row}.jpg"
        if row % 100:
            (folder / name).write_bytes(picture(row))
        caption = f"a {COLOURS[row % 8]} {THINGS[row % 4]} number {row} beside a {COLOURS[row // 8 % 8]} wall"
        lines.append(f"{address}/{name}\t{caption}\n")
    lines.insert(7, "not a line of cc12m\n")
    (folder / "cc12m.tsv").write_text("".join(lines))


def test_the_missions_own_command(accounting, tmp_path, monkeypatch):
    home, site = tmp_path / "home", tmp_path / "site"
    site.mkdir()
    monkeypatch.setenv("XCLR_CLUSTER", "private")
    roots = json.dumps(trees.every(tmp_path / "data"))
    with website(site) as address, serving(home) as served:
        publish(site, address)
        overrides = [
            f"data.url={address}/cc12m.tsv", f"data.limit={LIMIT}", "train.image_size=64", "train.batch_size=32",
            "train.epochs=1", f"evaluate.roots={roots}", "evaluate.bootstrap=100",
            "evaluate.finetune={epochs: 1, batch_size: 16}", "evaluate.probe.epochs=2",
            "embed.model=sentence-transformers/all-MiniLM-L6-v2", "embed.precision=float32",  # packaged, and no GPU
        ]  # fmt: skip
        with deployed(client_environment(served, home, tmp_path / "client")) as prefect:
            arguments = ["deployment", "run", "xclr-full/cc12m", "--param", f"overrides={json.dumps(overrides)}"]
            done = prefect(*arguments, "--watch", timeout=1700)
            assert done.returncode == 0, done.stdout + done.stderr
            check_jobs(home)
            check_metrics(served.mlflow)
            names = task_names(served, flow_run_of(done.stdout))
            assert any(re.fullmatch(r"pretrain xclr seed 0 \(Slurm job \d+\)", each) for each in names), names
            longer = json.dumps([*overrides, "name=longer", "objectives=[simclr]", "train.epochs=50"])
            check_cancel(prefect, home, longer)


def check_cancel(prefect: Prefect, home: Path, overrides: str) -> None:
    """A run that is cancelled in Prefect ends its jobs within 30 s."""
    started = prefect("deployment", "run", "xclr-full/cc12m", "--param", f"overrides={overrides}")
    assert started.returncode == 0, started.stdout + started.stderr
    entry = until(
        lambda: next((e for e in Book(home).read().entries if e.job and e.state is None and e.name), None), 90
    )
    job = str(entry.job).removeprefix("slurm/")
    until(lambda: state_of(job) == "RUNNING", 60)
    assert prefect("flow-run", "cancel", flow_run_of(started.stdout)).returncode == 0
    until(lambda: state_of(job) in {"CANCELLED", "COMPLETING"}, 30)
    until(lambda: read_runs(home)[-1].state == "cancelled", 30)


def task_names(served: Served, flow_run: str) -> list[str]:
    """The task runs of a flow run."""
    body = {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": 200}
    return [each["name"] for each in api(served, "/task_runs/filter", body)]


def check_jobs(home: Path) -> None:
    """Every heavy stage was one job, eight ranks on one node train a ResNet-50, lost pictures are accounted for."""
    (record,) = read_runs(home)
    assert record.state == "completed"
    book, store = Book(home), Store(home)
    entries = {entry.stage: entry for entry in book.read().entries}
    for title in ("simclr", "clip", "xclr"):
        entry = entries[f"pretrain {title} seed 0"]
        assert entry.state is JobState.COMPLETED and entry.attempt == 1
        job = str(entry.job).removeprefix("slurm/")
        fields = "--format=JobID,NNodes,NTasks,AllocTRES"  # of sacct: the controller forgets a job after five minutes
        rows = slurm("sacct", "--noheader", "--parsable2", f"--jobs={job}", fields).splitlines()
        step = next(row.split("|") for row in rows if row.startswith(f"{job}.0|"))
        assert step[1:3] == ["1", "8"] and "gres/gpu=8" in step[3]
        for suite in (
            SUITES.keys() - {"linear", "keywords"} - (set() if title == "clip" else {"zero-shot", "retrieval"})
        ):
            assert str(entries[f"{suite} {title} seed 0"].job).startswith("slurm/")
    planned = {stage.name: stage for stage in pipeline(record.recipe, store)}
    config = planned["pretrain xclr seed 0"].config
    assert (config.train.backbone, config.train.image_size, config.train.batch_size) == ("resnet50", 64, 32)
    images = store.manifest(store.reference(planned["images"].digest))
    assert images.stats["rows"] == LIMIT and images.stats["ok"] == LIMIT - 3 and images.stats["http_4xx"] == 3


def check_metrics(mlflow: str) -> None:
    """CLIP and X-CLR stand side by side, each with its training and its suites."""
    client = MlflowClient(mlflow)
    experiment = client.get_experiment_by_name("cc12m")
    runs = {run.data.tags.get("method"): run.data for run in client.search_runs([experiment.experiment_id])}
    for method in ("clip", "xclr"):
        metrics = runs[method].metrics
        assert {"train/loss", *TOP1} <= set(metrics)
        assert ("eval/zero-shot/val_top1" in metrics) is (method == "clip")
        assert metrics["cost/gpu_hours/pretrain"] > 0 and metrics["cost/cpu_efficiency/pretrain"] > 0
