"""Many stages at once, on this machine: each is made once, and one that fails stops no other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from infra.batch import ensure_all
from infra.home.sweeps import cell_lines, find_sweep
from infra.ledger import JobState
from infra.resources import Resources
from infra.run import Cores
from tests.kit.holds import hold, holdable, release
from tests.kit.polling import until
from tests.kit.recipes import ALONE
from tests.kit.runs import begin_with_graph
from tests.kit.sweeps import TAU, make_levels, open_sweep, small
from xclr.sweep.cells import counts

pytestmark = pytest.mark.slow


def attempts(run) -> dict[str, int]:
    return {entry.stage: entry.attempt for entry in run.book.read().entries}


def test_a_sweep_is_made_once_and_extended_by_what_is_new(home):
    run, swept = open_sweep(begin_with_graph(home), small(), ALONE)
    assert make_levels(run, swept) == {}
    assert set(attempts(run).values()) == {1}
    assert counts(cell_lines(home, find_sweep(home, "s"))) == {"done": 2}
    before = attempts(run)
    more, wider = open_sweep(home, small(grid={TAU: [0.05, 0.1, 0.2]}), ALONE)
    assert make_levels(more, wider) == {}
    new = {name for name in attempts(more) if name not in before}
    assert len(new) == 3 and all("target_temperature=0.05" in name for name in new)  # training, features, suite
    assert {name: number for name, number in attempts(more).items() if name in before} == before


def test_a_cell_that_fails_is_marked_and_stops_no_other_and_retry_runs_it_alone(home):
    sweep = small(grid={"train.learning_rate": [0.001, 1e30]})
    run, swept = open_sweep(begin_with_graph(home), sweep, ALONE)
    failures = make_levels(run, swept)
    good, bad = swept.cells
    assert set(failures) == {each.digest for each in bad.stages}
    assert "gradient" in str(failures[bad.training.digest]) and "was not made" in str(failures[bad.suites[0].digest])
    lines = cell_lines(home, run.record)
    assert [each.state for each in lines] == ["done", "failed"]
    assert lines[1].level == "pretrain" and "gradient" in lines[1].reason
    client = run.tracker.tracker.mlflow.client
    ended = {
        each.data.tags.get("digest"): each.info.status for each in client.search_runs([run.tracker.tracker.opened], "")
    }
    assert ended.get(bad.training.digest, "FAILED") == "FAILED" and ended[good.training.digest] == "FINISHED"
    first = attempts(run)
    again, _ = open_sweep(home, sweep, ALONE)
    assert set(make_levels(again, swept)) == set(failures) and attempts(again) == first  # it stays failed
    retried, _ = open_sweep(home, sweep, ALONE, mode="retry")
    make_levels(retried, swept)
    changed = {name for name, number in attempts(retried).items() if first.get(name) != number}
    assert changed == {bad.training.name}
    assert run.book.latest(good.training.digest).attempt == 1


def test_a_job_that_reports_a_fault_is_tried_again_as_often_as_the_recipe_says(home):
    sweep = small(grid={"train.learning_rate": [1e30]})
    retries = sweep.recipe.retries.model_copy(update={"failures": 2})
    sweep = sweep.model_copy(update={"recipe": sweep.recipe.model_copy(update={"retries": retries})})
    run, swept = open_sweep(begin_with_graph(home), sweep, ALONE)
    make_levels(run, swept, "pretrain")
    tried = run.book.attempts(swept.cells[0].training.digest)
    assert [each.state for each in tried] == [JobState.FAILED] * 3


def test_what_another_run_makes_is_waited_for(home):
    one, swept = open_sweep(begin_with_graph(home), small(), ALONE)
    other, same = open_sweep(home, small(name="other"), ALONE)
    make_levels(one, swept, "pretrain")
    assert make_levels(other, same) == {}
    assert make_levels(one, swept) == {}
    assert set(attempts(one).values()) == {1}


def test_a_cell_is_judged_while_another_is_still_trained(home):
    run, swept = open_sweep(
        begin_with_graph(home), small(parallel=1), ALONE.model_copy(update={"default": Resources(threads=1)})
    )
    run.cores = Cores(2)
    first, last = swept.cells
    out = run.store.begin(last.training.output)
    hold(out, 1)
    with holdable(), ThreadPoolExecutor(1) as pool:
        made = pool.submit(make_levels, run, swept)
        until(lambda: run.store.find(first.suites[0].output))
        assert run.store.find(last.training.output) is None
        release(out)
        assert made.result() == {}


def test_where_an_input_was_not_made_nothing_is_begun(home):
    run, swept = open_sweep(home, small(), ALONE)
    with pytest.raises(KeyError):
        run.tracker.record = broken
        ensure_all(run, "captions", swept.levels["captions"])
    assert run.should_stop  # so that levels beside it do not wait in vain
    failures = ensure_all(run, "pretrain", swept.levels["pretrain"])
    assert ["captions was not made" in str(each) for each in failures.values()] == [True, True]
    assert {entry.kind for entry in run.book.read().entries} == {"captions"}


def broken(*_: object) -> None:
    raise KeyError("a fault of ours")
