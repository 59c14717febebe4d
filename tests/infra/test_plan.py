"""The plan says what is there, and touches nothing."""

from __future__ import annotations

from infra.ledger import UNSEEN_GRACE, Entry, JobState, now, this_process
from infra.observe import observe
from infra.plan import plan
from tests.infra.conftest import CLUSTER, TINY, open_run
from tests.infra.test_stage import data
from xclr.job import RESULT
from xclr.recipe import Recipe
from xclr.store import Store, only_writer

RECIPE = Recipe.model_validate(TINY)


def test_an_empty_home_is_all_misses_and_stays_empty(home):
    planned = plan(RECIPE, Store(home), CLUSTER)
    assert {stage.state for stage in planned} == {"miss"}
    assert not home.exists()
    assert len({stage.digest for stage in planned}) == len(planned)


def test_finished_stages_are_hits_with_rows_and_bytes(home):
    data(open_run(home))
    planned = {stage.stage: stage for stage in plan(RECIPE, Store(home), CLUSTER)}
    assert planned["captions"].state == planned["images"].state == "hit"
    assert planned["images"].rows == 400
    assert planned["images"].bytes > 100_000
    assert planned["comparison"].state == "miss"


def test_a_stage_with_a_live_job_is_running(home):
    run = open_run(home)
    stage = plan(RECIPE, run.store, CLUSTER)[0]
    entry = Entry(
        digest=stage.digest, kind="captions", stage="captions", run=run.id, attempt=1, owner=this_process(),
        claimed=now(), job=this_process(),
    )  # fmt: skip
    assert run.book.claim(entry)
    assert plan(RECIPE, run.store, CLUSTER)[0].state == "running"


def test_a_job_of_another_machine_is_believed_alive_while_it_is_young_or_writes(home):
    run = open_run(home)
    out = home / "out"
    young = Entry(
        digest="d" * 32, kind="captions", stage="captions", run=run.id, attempt=1, owner="elsewhere/1/1",
        claimed=now(), job="elsewhere/2/2",
    )  # fmt: skip
    old = young.model_copy(update={"claimed": now() - 2 * UNSEEN_GRACE})
    assert observe(young, out) == {"elsewhere/2/2": JobState.RUNNING}
    assert observe(old, out) == {"elsewhere/2/2": JobState.GONE}
    with only_writer(out):
        assert observe(old, out) == {"elsewhere/2/2": JobState.RUNNING}
    (out / RESULT).touch()
    assert observe(young, out) == {"elsewhere/2/2": JobState.COMPLETED}
