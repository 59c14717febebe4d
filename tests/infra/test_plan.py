"""The plan says what is there, and touches nothing."""

from __future__ import annotations

from infra.ledger import Entry, now, this_process
from infra.plan import plan
from tests.infra.conftest import CLUSTER, TINY, open_run
from tests.infra.test_stage import data
from xclr.recipe import Recipe
from xclr.store import Store

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
