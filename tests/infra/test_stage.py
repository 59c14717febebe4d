"""`ensure` with real jobs: what is there is found, what runs is waited for, what died is made again."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from infra import ledger
from infra.cluster import Cluster
from infra.ledger import JobState, find_process, processes_of
from infra.runs import read_runs
from infra.stage import ensure
from tests.infra.conftest import CLUSTER, TINY, open_run
from tests.training.home import training_data
from xclr.captions import stages as captions_stages
from xclr.errors import JobError, StoreError
from xclr.images import stages as images_stages
from xclr.recipe import Recipe
from xclr.spool import SPOOL, read_spool
from xclr.store import MANIFEST
from xclr.training import stages as training_stages

ORCHESTRATOR = """
import sys
from pathlib import Path
from tests.infra.conftest import TINY, open_run
from tests.infra.test_stage import pretrained
from infra.cluster import Cluster
from xclr.recipe import Recipe
recipe, cluster = Recipe.model_validate_json(sys.argv[2]), Cluster.model_validate_json(sys.argv[3])
run = open_run(Path(sys.argv[1]), recipe=recipe, cluster=cluster)
end = "failed"
try:
    pretrained(run)
    end = "completed"
finally:
    run.close(end)
"""


def data(run):
    captions = ensure(run, captions_stages.captions(run.recipe, run.store))
    return {"captions": captions, "images": ensure(run, images_stages.images(run.recipe, run.store, captions)[-1])}


def pretrain_stage(run, made):
    return training_stages.trainings(run.recipe, training_data(made))[1].stage


def pretrained(run):
    return ensure(run, pretrain_stage(run, data(run)))


def until(condition, timeout_s=60.0):
    """Poll for a condition that another process brings about."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come about"
        time.sleep(0.05)
    return found


def long_recipe():
    train = TINY["train"] | {"epochs": 60}
    return Recipe.model_validate(TINY | {"train": train})


def orchestrate(home: Path, recipe: Recipe, cluster: Cluster = CLUSTER) -> subprocess.Popen[bytes]:
    arguments = [str(home), recipe.model_dump_json(), cluster.model_dump_json()]
    return subprocess.Popen([sys.executable, "-c", ORCHESTRATOR, *arguments])


def test_a_job_is_claimed_when_its_cores_are_free_so_that_its_time_is_its_own(home):
    run = open_run(home)
    with run.cores.taken(run.cores.total):
        thread = threading.Thread(target=data, args=(run,))
        thread.start()
        until(lambda: run.cores.changed._waiters)
        freed = ledger.now()
    thread.join()
    assert all(entry.claimed >= freed for entry in run.book.read().entries)
    assert len(run.book.read().entries) == 2


def test_a_finished_stage_is_found_and_not_made_again(home):
    first = data(open_run(home))
    again = open_run(home)
    assert data(again) == first
    assert {entry.attempt for entry in again.book.read().entries} == {1}


def test_a_damaged_artifact_is_made_again(home):
    captions = data(open_run(home))["captions"]
    file = captions.path / "captions.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    run = open_run(home)
    ensure(run, captions_stages.captions(run.recipe, run.store))
    run.store.verify(captions)
    assert run.book.latest(captions.digest).attempt == 2


def test_force_makes_again_and_read_only_makes_nothing(home):
    with pytest.raises(StoreError, match="read-only"):
        data(open_run(home, mode="read-only"))
    made = data(open_run(home))
    run = open_run(home, mode="read-only")
    assert data(run) == made
    run.store.discard(made["captions"])
    assert not (made["captions"].path / MANIFEST).exists()
    assert data(open_run(home)) == made


def test_a_failed_stage_says_why_and_is_tried_again_only_in_retry_mode(home):
    table = home.parent / "table.parquet"
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"caption": ["a", ""], "image": [b"1", b"2"]}), table)
    recipe = Recipe.model_validate({"name": "own", "data": {"source": "table", "path": str(table)}})
    stage = captions_stages.captions(recipe, open_run(home, recipe=recipe).store)
    for mode, attempts in (("retry", 1), ("cached", 1), ("retry", 2)):
        run = open_run(home, mode=mode, recipe=recipe)
        with pytest.raises(JobError, match="1 captions are empty"):
            ensure(run, stage)
        assert run.book.latest(stage.digest).attempt == attempts


@pytest.mark.slow
def test_two_ranks_pretrain_as_one_job_with_its_log(home):
    run = open_run(home)
    artifact = pretrained(run)
    manifest = run.store.manifest(artifact)
    assert manifest.stats["step"] == max(entry.step for entry in read_spool(artifact.path / SPOOL))
    assert manifest.cost.cpu_s > 0
    entry = run.book.latest(artifact.digest)
    assert entry.state is JobState.COMPLETED
    assert Path(entry.log).exists()
    assert len(list(Path(entry.log).parent.glob("*_log.out"))) == 2
    pickles = list(Path(entry.log).parent.glob("*_submitted.pkl"))
    assert all(path.stat().st_size < 10_000 and b"PATH" not in path.read_bytes() for path in pickles)


@pytest.mark.slow
def test_a_killed_orchestrator_leaves_its_job_to_the_next_run(home):
    recipe = long_recipe()
    process = orchestrate(home, recipe)
    probe = open_run(home, recipe=recipe)
    try:
        entry = until(
            lambda: next((each for each in probe.book.read().entries if each.kind == "pretrain" and each.job), None)
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert find_process(entry.job) is not None, "the job ended with its orchestrator"
        artifact = pretrained(open_run(home, recipe=recipe))
        assert probe.store.manifest(artifact).jobs == (entry.job,)
        assert probe.book.latest(artifact.digest).attempt == 1
    finally:
        process.kill()


@pytest.mark.slow
def test_a_killed_job_is_submitted_again_and_resumes(home):
    recipe = long_recipe()
    run = open_run(home, recipe=recipe)
    stage = pretrain_stage(run, data(run))
    process = orchestrate(home, recipe)
    out = run.store.reference(stage.digest).path
    try:
        until(lambda: list((out / "checkpoints").glob("step-*.pt")))
        entry = run.book.latest(stage.digest)
        for each in processes_of(entry.job):
            each.kill()
        assert process.wait(timeout=120) == 0
        artifact = run.store.find(stage.digest)
        steps = [each.step for each in read_spool(artifact.path / SPOOL)]
        assert steps == list(range(1, max(steps) + 1)), "a step was lost or logged twice"
        assert run.book.latest(stage.digest).attempt == 2
        log = Path(run.book.latest(stage.digest).log)
        assert log.exists()
        assert not (artifact.path / "checkpoints").exists()
    finally:
        process.kill()


@pytest.mark.slow
def test_two_runs_of_one_recipe_share_the_job(home):
    recipe = long_recipe()
    data(open_run(home, recipe=recipe))
    processes = [orchestrate(home, recipe) for _ in range(2)]
    assert [process.wait(timeout=180) for process in processes] == [0, 0]
    run = open_run(home, recipe=recipe)
    attempts = sorted((home / "ledger").glob("*/*.json"))
    assert len(attempts) == len({path.parent for path in attempts}), "a stage was made twice"
    assert len([record for record in read_runs(home) if record.recipe == recipe]) == len(processes) + 2
    assert run.store.find(pretrain_stage(run, data(run)).digest) is not None
