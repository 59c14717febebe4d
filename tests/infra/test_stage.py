"""`ensure` with real jobs: what is there is found, what runs is waited for, what died is made again."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from infra.home.runs import read_runs
from infra.ledger import JobState, Submit
from infra.processes import find_process, now, processes_of
from infra.stage import claim, commit, ensure
from tests.kit.disks import fill, small_disk
from tests.kit.polling import until
from tests.kit.recipes import ALONE, STEPS, tiny
from tests.kit.runs import data, open_run, pretrained
from tests.kit.trainings import Training
from xclr.captions import stages as captions_stages
from xclr.disk import told
from xclr.errors import JobError, StoreError, XclrError
from xclr.job import FAILURE, RESULT
from xclr.owncode import own_code
from xclr.recipe import Recipe
from xclr.store import MANIFEST
from xclr.training.spool import SPOOL, read_spool


@pytest.mark.slow
def test_a_job_is_claimed_when_its_cores_are_free_so_that_its_time_is_its_own(home):
    run = open_run(home)
    with run.cores.taken(run.cores.total):
        thread = threading.Thread(target=data, args=(run,))
        thread.start()
        until(lambda: run.cores.changed._waiters)
        freed = now()
    thread.join()
    assert all(entry.claimed >= freed for entry in run.book.read().entries)
    assert len(run.book.read().entries) == 2


@pytest.mark.slow
def test_a_finished_stage_is_found_and_not_made_again(home):
    first = data(open_run(home))
    again = open_run(home)
    assert data(again) == first
    assert {entry.attempt for entry in again.book.read().entries} == {1}


@pytest.mark.slow
def test_a_damaged_artifact_is_made_again(home):
    captions = data(open_run(home))["captions"]
    file = captions.path / "captions.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    run = open_run(home)
    ensure(run, captions_stages.captions(run.recipe, run.store))
    run.store.verify(captions)
    assert run.book.latest(captions.digest).attempt == 2


def test_an_outcome_that_was_cut_is_none(home):
    run = open_run(home, mode="cached")
    stage = captions_stages.captions(run.recipe, run.store)
    out, entry = (
        run.store.begin(stage.digest),
        claim(run, stage, run.store.begin(stage.digest), Submit(stage.digest, 1, ""), ""),
    )
    for name in (RESULT, FAILURE):
        (out / name).write_text('{"mess')
    commit(run.store, run.book, stage, out)
    assert not (out / RESULT).exists() and run.store.find(stage.digest) is None
    run.book.update(entry.model_copy(update={"job": entry.owner, "state": JobState.FAILED}))
    with pytest.raises(JobError, match="captions: it failed"):
        ensure(run, stage)


@pytest.mark.slow
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

    pq.write_table(pa.table({"caption": ["a", "b", "c"], "image": [b"1", b"2", b"3"]}), table)
    recipe = Recipe.model_validate({"name": "own", "data": {"source": "table", "path": str(table)}})
    stage = captions_stages.captions(recipe, open_run(home, recipe=recipe).store)
    torn = home.parent / "torn.parquet"  # which no plan saw
    pq.write_table(pa.table({"caption": ["a", "", ""], "image": [b"1", b"2", b"3"]}), torn)
    changed = stage.config.data.model_copy(update={"path": torn})
    stage = replace(stage, config=stage.config.model_copy(update={"data": changed}))
    for mode, attempts in (("retry", 1), ("cached", 1), ("retry", 2)):
        run = open_run(home, mode=mode, recipe=recipe)
        with pytest.raises(JobError, match="2 of 3 captions are of no use"):
            ensure(run, stage)
        assert run.book.latest(stage.digest).attempt == attempts


@pytest.mark.slow
def test_two_ranks_pretrain_as_one_job_with_its_log(home):
    run = open_run(home)
    artifact = pretrained(run)
    manifest = run.store.manifest(artifact)
    assert manifest.stats["step"] == max(entry.step for entry in read_spool(artifact.path / SPOOL))
    assert manifest.cost.cpu_s > 0
    assert manifest.made_by == own_code(), "the job's frozen code is this, of the same commit"
    entry = run.book.latest(artifact.digest)
    assert entry.state is JobState.COMPLETED
    assert Path(entry.log).exists()
    assert len(list(Path(entry.log).parent.glob("*_log.out"))) == 2
    pickles = list(Path(entry.log).parent.glob("*_submitted.pkl"))
    assert all(path.stat().st_size < 10_000 and b"PATH" not in path.read_bytes() for path in pickles)


@pytest.mark.slow
def test_a_killed_orchestrator_leaves_its_job_to_the_next_run(home):
    with Training(home, tiny(), ALONE, held_at=1) as training:
        process = training.start()
        entry = training.entry()
        process.kill()
        process.wait()
        assert find_process(entry.job) is not None, "the job ended with its orchestrator"
        again = training.follow()
        training.release()
        again.result()
        assert training.manifest().jobs == (entry.job,)
        assert training.book.latest(training.digest).attempt == 1


@pytest.mark.slow
def test_a_killed_job_is_submitted_again_and_resumes(home):
    with Training(home, tiny(), ALONE, held_at=STEPS) as training:
        followed = training.follow()
        training.reach(STEPS)
        assert list((training.out / "checkpoints").glob("step-*.pt"))
        for each in list(processes_of(training.entry().job)):
            each.kill()
        training.entry(attempt=2)
        training.release()
        followed.result()
        assert len(training.losses()) == 2 * STEPS
        latest = training.book.latest(training.digest)
        assert latest.attempt == 2 and Path(latest.log).exists()
        assert not (training.out / "checkpoints").exists()


@pytest.mark.slow
def test_two_runs_of_one_recipe_share_the_job(home):
    with Training(home, tiny(), ALONE, held_at=1) as training:
        processes = [training.start() for _ in range(2)]
        until(lambda: len(read_runs(home)) == 2)
        training.entry()
        training.release()
        assert [process.wait() for process in processes] == [0, 0]
        attempts = list((home / "ledger").glob("*/[0-9]*.json"))
        assert len(attempts) == len({path.parent for path in attempts}), "a stage was made twice"
        assert training.store.find(training.stage.digest) is not None


@pytest.mark.slow
@pytest.mark.parametrize("left", [1 << 17, 0])
def test_a_disk_that_fills_up_is_why_a_stage_fails_whether_or_not_its_job_can_say_so(left, tmp_path):
    with small_disk(tmp_path / "full", 8 << 20) as home:
        run = open_run(home)
        fill(home, leave=left)
        says = f"no space left on {home} "
        with pytest.raises(XclrError, match=says), told(home):
            data(run)
        if left:
            (failed,) = home.glob(f"artifacts/*/*/{FAILURE}")
            assert says in failed.read_text()
            assert run.book.latest(failed.parent.name).attempt == 1, "no other attempt would fare better"
