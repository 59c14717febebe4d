"""`python -m xclr.job`: the outcome of a job is a file beside its output."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.kit.polling import until
from xclr import job
from xclr.artifact import Digest, Manifest, sha256_file
from xclr.captions.stages import CAPTIONS, CaptionsConfig
from xclr.errors import BusyError, DataError, Stopped
from xclr.images.stages import IMAGES, ImagesConfig
from xclr.job import FAILURE, PROGRESS, RESULT, Failure, Result
from xclr.pipeline import KINDS
from xclr.recipe import DataConfig
from xclr.stage import Stage
from xclr.store import Store, only_writer

ROOT = Path(__file__).parents[1]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def captions_stage(folder, captions=("a dog", "a cat", "a  dog")):
    """A captions stage over a table with these captions."""
    path = folder / "mine.parquet"
    pq.write_table(pa.table({"caption": list(captions), "image": [b"1"] * len(captions)}), path)
    return Stage(CAPTIONS, "captions", CaptionsConfig(data=DataConfig(source="table", path=path), sha256=("0",)))


def written(stage, folder):
    path = folder / "stage.json"
    path.write_text(stage.to_json())
    return path


def run(stage, folder, out):
    """Runs a stage as a job of its own."""
    command = [sys.executable, "-m", "xclr.job", str(written(stage, folder)), str(out)]
    environment = os.environ | {"XCLR_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_finished_job_leaves_its_result(tmp_path, out):
    done = run(captions_stage(tmp_path), tmp_path, out)
    assert (done.returncode, done.stderr) == (0, "")
    result = Result.model_validate_json((out / RESULT).read_text())
    (entry,) = result.files
    path = out / "captions.parquet"
    assert (entry.path, entry.rows, entry.bytes) == ("captions.parquet", 3, path.stat().st_size)
    assert entry.sha256 == sha256_file(path)
    assert (result.stats["rows"], result.stats["distinct"]) == (3, 2)
    assert result.cost.wall_s > 0
    assert result.cost.cpu_s > 0
    assert json.loads((out / PROGRESS).read_text()).items() >= {"done": 3, "total": 3, "whole": None}.items()
    assert not (out / FAILURE).exists()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stage_beside_others_keeps_to_its_threads_and_is_not_charged_with_what_ends_beside_it(
    threads, tmp_path, out, monkeypatch
):
    child = subprocess.Popen([sys.executable, "-c", "import time\nwhile time.process_time() < 1: pass"])
    before, seen = importlib.import_module(CAPTIONS.run).run, []

    def beside(stage, folder, progress):
        child.wait()
        seen.append(torch.get_num_threads())
        return before(stage, folder, progress)

    until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    monkeypatch.setattr(f"{CAPTIONS.run}.run", beside)
    thread = threading.Thread(target=job.run_stage, args=(captions_stage(tmp_path), out, threads))
    thread.start()
    thread.join()
    cost = Result.model_validate_json((out / RESULT).read_text()).cost
    assert 0 < cost.cpu_s <= cost.wall_s * threads
    assert seen == [threads]


def test_a_fault_a_person_can_mend_is_left_with_its_remedy(tmp_path, out):
    done = run(captions_stage(tmp_path, ["a dog", "", ""]), tmp_path, out)
    assert done.returncode == 1
    failure = Failure.model_validate_json((out / FAILURE).read_text())
    assert failure.error == "DataError"
    assert "2 of 3 captions are of no use (empty: rows 1, 2, counted from 0)" in failure.message
    assert failure.remedy.startswith("mend these rows")
    assert "DataError" in done.stderr
    assert not (out / RESULT).exists()


def test_a_second_writer_ends_with_3_and_leaves_the_firsts_outcome_alone(tmp_path, out):
    with only_writer(out) as mine:
        assert mine
        (out / RESULT).write_text("the first writer's")
        (out / PROGRESS).write_text("half")
        done = run(captions_stage(tmp_path), tmp_path, out)
    assert done.returncode == 3
    assert "written by another process" in done.stderr
    assert (out / RESULT).read_text() == "the first writer's"
    assert (out / PROGRESS).read_text() == "half"
    assert {each.name for each in out.iterdir()} == {".lock", RESULT, PROGRESS}


def test_a_second_writer_in_the_same_process_is_refused_too(tmp_path, out):
    with only_writer(out), pytest.raises(BusyError, match="another process"):
        job.run_stage(captions_stage(tmp_path), out)
    assert {each.name for each in out.iterdir()} == {".lock"}


def test_a_fault_nobody_foresaw_is_left_with_its_type(tmp_path, out, capsys):
    store, name = Store(tmp_path / "home"), Digest("captions", "0" * 32)
    store.begin(name)
    bare = {"inputs": (), "config": {}, "code": 1, "files": (), "stats": {}, "created": "2025-01-01T00:00:00Z"}
    empty = store.commit(store.reference(name), Manifest(kind="captions", digest=name, **bare))
    data = captions_stage(tmp_path).config.data
    stage = Stage(IMAGES, "images", ImagesConfig(data=data, sha256=("0",)), {"captions": empty})
    assert job.main(written(stage, tmp_path), out) == 1
    failure = Failure.model_validate_json((out / FAILURE).read_text())
    assert failure.error == "FileNotFoundError"
    assert failure.message.startswith("FileNotFoundError: ")
    assert failure.remedy == ""
    assert "Traceback" in capsys.readouterr().err


def test_what_an_earlier_attempt_said_is_gone_when_a_stage_runs_again(tmp_path, out):
    assert job.main(written(captions_stage(tmp_path, [""]), tmp_path), out) == 1
    assert (out / FAILURE).exists()
    assert job.main(written(captions_stage(tmp_path), tmp_path), out) == 0
    assert not (out / FAILURE).exists()
    assert (out / RESULT).exists()
    assert job.main(written(captions_stage(tmp_path, [""]), tmp_path), out) == 1
    assert not (out / RESULT).exists()


def test_an_error_in_this_process_is_raised(tmp_path, out):
    with pytest.raises(DataError, match="empty"):
        job.run_stage(captions_stage(tmp_path, [""]), out)
    assert not (out / FAILURE).exists()


def test_a_job_can_run_again_where_it_failed(tmp_path, out):
    with pytest.raises(DataError):
        job.run_stage(captions_stage(tmp_path, [""]), out)
    job.run_stage(captions_stage(tmp_path), out)
    assert (out / RESULT).exists()


def test_a_result_can_be_committed_to_the_store(tmp_path):
    store, stage = Store(tmp_path / "home"), captions_stage(tmp_path)
    job.run_stage(stage, store.begin(stage.digest))
    artifact = store.reference(stage.digest)
    result = Result.model_validate_json((artifact.path / RESULT).read_text())
    manifest = Manifest(
        kind=stage.kind.name, digest=stage.digest, inputs=(), config=stage.identity, code=stage.kind.code,
        files=result.files, stats=result.stats, cost=result.cost, created="2025-01-01T00:00:00Z",
    )  # fmt: skip
    store.commit(artifact, manifest)
    assert store.find(stage.digest) == artifact
    store.verify(artifact)


def test_every_kind_names_a_module_that_can_run_it():
    for kind in KINDS.values():
        module = importlib.import_module(kind.run)
        assert callable(module.run) and (kind.pieces is None or callable(module.run_shard)), kind.name


def test_the_end_of_a_stage_is_always_told(tmp_path):
    progress = job.ProgressFile(tmp_path / PROGRESS, interval_s=float("inf"))
    progress(3, 10)
    assert not (tmp_path / PROGRESS).exists()
    progress(10, 10)
    assert json.loads((tmp_path / PROGRESS).read_text()).items() >= {"done": 10, "total": 10}.items()
    assert [each.name for each in tmp_path.iterdir()] == [PROGRESS]


@pytest.mark.slow
def test_the_first_ranks_signal_goes_to_the_handler_of_before_when_all_is_saved(tmp_path):
    """Which is submitit's: it requeues the job at once."""
    seen = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: seen.append(number))
    try:
        job._hand_on(Stopped("stopped", signal.SIGUSR2), 0, tmp_path)
        job._hand_on(Stopped("stopped", signal.SIGUSR2), 1, tmp_path)  # another rank's does not
        job._hand_on(Stopped("stopped"), 0, tmp_path)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == [signal.SIGUSR2]
