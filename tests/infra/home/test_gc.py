"""gc: what a kept or running run needs stays, whatever the history; the rest goes, even after a crash."""

from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.executors.executor import ARRAYS
from infra.home.gc import CODE_KEPT_S, collect, kept_runs, survey
from infra.home.runs import new_record, read_runs, write_record
from infra.ledger import Book, Entry, JobState
from infra.plan import plan
from infra.processes import this_process
from tests.kit.recipes import CLUSTER, TINY
from tests.kit.runs import data, open_run
from tests.kit.sweeps import small
from xclr.artifact import Digest, Manifest
from xclr.captions import stages as captions_stages
from xclr.errors import StoreError
from xclr.recipe import Recipe
from xclr.record import record_path
from xclr.store import MANIFEST, Store, only_writer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("one", "two")


def name(number: int) -> str:
    return f"{number:032x}"


def make(home: Path, number: int, inputs: tuple[int, ...] = (), *, finished: bool = True) -> Path:
    """An artifact without files, or the leftovers of one, and its ledger."""
    store = Store(home)
    reference = store.reference(Digest("graph", name(number)))
    out = store.begin(reference.digest)
    (out / "checkpoints").mkdir()
    (out / "checkpoints" / "step-1.pt").write_bytes(b"123")
    if finished:
        manifest = Manifest(
            kind="graph", digest=name(number), inputs=tuple(map(name, inputs)), config={}, code=1, files=(),
            stats={}, created=NOW.isoformat(),
        )  # fmt: skip
        store.commit(reference, manifest)
    entry = entry_of(number, JobState.COMPLETED if finished else JobState.GONE)
    Book(home).claim(entry)
    return out


def entry_of(number: int, state: JobState | None) -> Entry:
    return Entry(
        digest=name(number), kind="graph", stage=f"stage {number}", run="r", attempt=1, owner=this_process(),
        claimed=NOW, job="host/1/1", state=state,
    )  # fmt: skip


def record(
    home: Path, recipe: str, minute: int, numbers: tuple[int, ...], state: str = "completed", reason: str = ""
) -> str:
    made = new_record(Recipe.model_validate(TINY | {"name": recipe}), map(name, numbers))
    made = made.model_copy(update={"state": state, "reason": reason, "started": NOW + timedelta(minutes=minute)})
    write_record(home, made)
    return made.run


def gone(home: Path, keep: int | None = None, **options: bool) -> set[str]:
    return {each.digest for each in collect(home, survey(home, keep, **options))}


def files(home: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in home.rglob("*")}


def test_what_no_run_refers_to_goes_with_its_ledger_and_looking_touches_nothing(home):
    kept, stray, leftover = make(home, 1), make(home, 2), make(home, 3, finished=False)
    record(home, "one", 0, (1,))
    before = files(home)
    items = survey(home).items
    assert files(home) == before
    assert [(each.kind, each.name, each.bytes > 0, each.why) for each in items] == [
        ("graph", "stage 2", True, "no kept run refers to it"),
        ("graph", "stage 3", True, "left by an attempt that ended"),
    ]
    assert gone(home) == {name(2), name(3)}
    assert (kept.exists(), stray.exists(), leftover.exists()) == (True, False, False)
    assert {entry.digest for entry in Book(home).read().entries} == {name(1)}
    assert survey(home).items == ()


def test_only_the_newest_runs_of_each_recipe_are_kept_and_running_ones(home):
    for number in range(5):
        make(home, number)
    record(home, "one", 0, (0,), state="running")
    old = record(home, "one", 1, (1,))
    new = record(home, "one", 2, (2,))
    record(home, "two", 0, (3,))
    unplanned = record(home, "one", 3, (), state="failed", reason="no table")
    pages = home / "pages"
    pages.mkdir()
    for page in (f"compare-{old}.html", f"graph-{old}.html", f"compare-{new}.html"):
        (pages / page).touch()
    (pages / "compare-one.html").symlink_to(f"compare-{old}.html")
    assert gone(home, keep=1) == {old, unplanned, name(1), name(4)}
    assert old not in {each.run for each in read_runs(home)}
    assert [each.name for each in pages.iterdir()] == [f"compare-{new}.html"], "the pages of a run go with it"
    assert gone(home, keep=0) >= {name(2), name(3)}
    assert [each.state for each in read_runs(home)] == ["running"]


def test_what_a_kept_run_may_resume_goes_only_when_asked_for(home):
    make(home, 1, finished=False)
    make(home, 2, finished=False)
    record(home, "one", 0, (1,), state="failed")
    record(home, "two", 0, (2,), state="running")
    assert gone(home) == set()
    assert gone(home, unfinished=True) == {name(1)}


def test_what_is_being_made_stays(home):
    claimed, locked = make(home, 1, finished=False), make(home, 2, finished=False)
    running = entry_of(1, None).model_copy(update={"job": this_process()})
    Book(home).update(running)
    with only_writer(locked):
        assert gone(home, unfinished=True) == set()
    assert gone(home) == {name(2)}
    assert claimed.exists()


def test_what_is_taken_up_after_the_survey_stays(home):
    by_lock, by_run = make(home, 1), make(home, 2)
    found = survey(home)
    assert {each.digest for each in found.items} == {name(1), name(2)}
    record(home, "one", 0, (2,), state="running")
    with only_writer(by_lock):
        assert list(collect(home, found)) == []
    assert (by_lock / MANIFEST).exists()
    assert (by_run / MANIFEST).exists()


def test_what_a_crash_left_goes_the_next_time(home):
    out, other = make(home, 1), make(home, 2)
    (out / MANIFEST).unlink()
    shutil.rmtree(other)
    assert [(each.kind, each.digest) for each in survey(home).items] == [("graph", name(1)), ("ledger", name(2))]
    assert gone(home) == {name(1), name(2)}
    assert not any((home / "ledger").iterdir())


def test_a_record_that_cannot_be_read_stops_it(home):
    out = make(home, 1)
    record_path(home, "old").parent.mkdir()
    record_path(home, "old").write_text("{}")
    with pytest.raises(StoreError, match=r"old\.json cannot be read(.|\n)*delete "):
        survey(home)
    assert out.exists()


def array(home: Path, called: str, age_s: float) -> Path:
    """The folder of a job array with a log, last changed so long ago."""
    folder = home / ARRAYS / called
    folder.mkdir(parents=True)
    (folder / "4711_0_0_log.out").write_text("trained\n")
    os.utime(folder, (time.time() - age_s,) * 2)
    return folder


def test_the_logs_of_an_array_go_with_the_last_output_that_it_made(home):
    old = CODE_KEPT_S + 60
    used, unused, young = array(home, "used", old), array(home, "unused", old), array(home, "young", 60)
    for number in (1, 2):
        make(home, number)
        Book(home).update(entry_of(number, JobState.COMPLETED).model_copy(update={"name": "used", "element": number}))
    run = record(home, "one", 0, (1,))
    assert [(each.kind, each.digest, each.bytes) for each in survey(home).items if each.kind == "array"] == [
        ("array", "unused", len("trained\n"))
    ]
    assert gone(home) == {name(2), "unused"}
    assert (used.exists(), unused.exists(), young.exists()) == (True, False, True)
    record_path(home, run).unlink()
    assert gone(home) == {name(1), "used"}
    assert [each.name for each in (home / ARRAYS).iterdir()] == ["young"]


def test_the_logs_of_an_array_that_still_makes_something_stay(home):
    folder = array(home, "busy", CODE_KEPT_S + 60)
    make(home, 1, finished=False)
    Book(home).update(entry_of(1, None).model_copy(update={"job": this_process(), "name": "busy", "element": 0}))
    assert gone(home) == set()
    assert folder.exists()


def test_what_killed_writers_left_goes_after_a_day_and_nothing_else_that_is_hidden(home):
    make(home, 1)
    run = record(home, "one", 0, (1,))
    out = record_path(home, run).parent
    names = (".one.json.0123456789abcdef", ".progress.json.4711", ".lock", ".young.json.00ff")
    for each in names:
        (out / each).write_text("half")
        age_s = 0 if "young" in each else CODE_KEPT_S + 60
        os.utime(out / each, (time.time() - age_s,) * 2)
    found = [each for each in survey(home).items if each.kind == "draft"]
    assert [(each.name, each.bytes) for each in found] == [("draft of one.json", 4), ("draft of progress.json", 4)]
    assert gone(home) == {str((out / each).relative_to(home)) for each in names[:2]}
    assert [(out / each).exists() for each in names] == [False, False, True, True]


def test_runs_of_a_sweep_are_counted_by_its_name_and_not_with_those_of_its_recipe():
    warm, cold = small(name="warm"), small(name="cold")
    sweeps = [warm, None, cold, warm, None, warm]
    runs = [
        new_record(warm.recipe, ()).model_copy(update={"run": str(number), "state": "completed", "sweep": sweep})
        for number, sweep in enumerate(sweeps)
    ]
    assert [each.run for each in kept_runs(runs, 1)] == ["2", "4", "5"]
    assert [each.run for each in kept_runs(runs, 2)] == ["1", "2", "3", "4", "5"]
    assert kept_runs(runs, None) == tuple(runs)
    assert kept_runs([runs[0].model_copy(update={"state": "running"}), *runs[1:]], 0)[0].run == "0"


@st.composite
def histories(draw):
    """(inputs of each artifact, of which it is finished, runs as (recipe, state, planned), how many to keep)."""
    count = draw(st.integers(1, 8))
    inputs = [tuple(draw(st.sets(st.integers(0, number - 1), max_size=3))) if number else () for number in range(count)]
    finished = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    run = st.tuples(
        st.sampled_from(NAMES), st.sampled_from(["running", "completed", "failed"]), st.sets(st.integers(0, count - 1))
    )
    return inputs, finished, draw(st.lists(run, max_size=5)), draw(st.sampled_from([None, 0, 1, 2]))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories())
def test_nothing_that_a_kept_run_can_reach_is_ever_removed(tmp_path_factory, history):
    inputs, finished, runs, keep = history
    home = tmp_path_factory.mktemp("gc")
    paths = [make(home, number, inputs[number], finished=finished[number]) for number in range(len(inputs))]
    for minute, (recipe, state, planned) in enumerate(runs):
        record(home, recipe, minute, tuple(planned), state)
    removed = gone(home, keep)
    kept = [
        planned
        for minute, (recipe, state, planned) in enumerate(runs)
        if state == "running" or keep is None or sum(each[0] == recipe for each in runs[minute + 1 :]) < keep
    ]
    waiting, needed = [number for planned in kept for number in planned], set()
    while waiting:
        number = waiting.pop()
        if number not in needed:
            needed.add(number)
            waiting.extend(inputs[number] if finished[number] else ())
    for number, path in enumerate(paths):
        assert path.exists() == (number in needed) == (name(number) not in removed)
    assert len(read_runs(home)) == len(kept)


@pytest.mark.slow
def test_after_gc_the_plan_of_a_kept_recipe_is_what_it_was(home):
    run = open_run(home)
    data(run)
    run.close("completed")
    other = open_run(
        home, recipe=Recipe.model_validate(TINY | {"name": "other", "data": {"source": "emoji", "limit": 300}})
    )
    captions = captions_stages.captions(other.recipe, other.store)
    data(other)
    other.close("completed")
    record_path(home, other.id).unlink()
    before = plan(run.recipe, run.store, CLUSTER)
    assert [each.state for each in before[:2]] == ["hit", "hit"]
    assert str(captions.digest) in gone(home)
    assert plan(run.recipe, run.store, CLUSTER) == before
    assert run.store.find(captions.digest) is None
