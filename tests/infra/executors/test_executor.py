"""Backends: by name, by the ids of their jobs, and one of another package from its start to its end."""

from __future__ import annotations

import os

import pytest

from infra.cancel import cancel_run, find_run
from infra.cluster import Cluster
from infra.executors.executor import EXECUTORS, executor_named, executor_of, rank_log
from infra.home.status import find_job
from infra.ledger import Entry, JobState
from infra.processes import find_process, now, this_process
from infra.resources import Resources
from tests.kit.polling import until
from tests.kit.recipes import tiny
from tests.kit.toy_executor import process_of
from tests.kit.trainings import Training
from xclr.errors import JobError, RecipeError
from xclr.job import RESULT

RECIPE = tiny(epochs=1)


@pytest.mark.parametrize(
    ("job", "name", "call"),
    [
        ("slurm/4711", "slurm", "Slurm job 4711"),
        ("slurm/4711+4712", "slurm", "Slurm job 4711 + 4712"),
        ("slurm/4711_3", "slurm", "Slurm job 4711_3"),
        ("a.b-c/99/1795620090123", "local", "process 99 of a.b-c"),
        ("slurm/99/1795620090123", "local", "process 99 of slurm"),  # of a machine of that name
    ],
)
def test_the_executor_of_a_job_follows_from_its_id(job, name, call):
    executor = executor_of(job)
    assert (executor.name, executor.call(job)) == (name, call)


def test_a_job_that_was_not_written_down_is_asked_for_by_its_name():
    assert executor_of("xclr-pretrain-clip-seed-0-1a2b3c4d").name == "slurm"
    for name in EXECUTORS:
        drawn = {executor_named(name).draw_name("Suite (few shot)") for _ in range(2)}
        assert drawn == {""} or len(drawn) == 2
        assert executor_of(drawn.pop()).name == ("slurm" if name == "slurm" else "local")
    with pytest.raises(RecipeError, match="no executor 'moon': there are inline, local, slurm"):
        executor_of("moon/7")


def test_a_name_that_is_nearly_one_is_told_the_right_one():
    with pytest.raises(RecipeError, match="no executor 'slrum': did you mean slurm"):
        executor_named("slrum")


@pytest.mark.parametrize(
    ("first", "element", "expected"),
    [
        ("4711_0_log.out", "", "4711_2_log.out"),
        ("4711_0_log.out", "4711_3", "4711_2_log.out"),  # no array
        ("4711_0_0_log.out", "", "4711_0_2_log.out"),
        ("4711_0_0_log.out", "4711_3", "4711_3_2_log.out"),
        ("log", "4711_3", "log"),
    ],
)
def test_the_log_of_a_rank_lies_beside_that_of_the_first(first, element, expected, tmp_path):
    assert rank_log(tmp_path / first, 2, element) == tmp_path / expected


def test_a_process_takes_cores_of_this_machine_and_is_seen_on_its_node():
    local, me = executor_named("local"), this_process()
    entry = Entry(digest="d", kind="k", stage="s", run="r", attempt=1, owner=me, claimed=now(), job=me)
    assert local.look(entry).node == me.split("/")[0] and local.ids(me) == (str(os.getpid()),)
    assert local.is_here and not local.has_arrays and local.answers


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A package with an entry point, on the path of this process and of those that it starts."""
    package = tmp_path / "toy-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[xclr.executors]\ntoy = tests.kit.toy_executor:Toy\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(tmp_path)
    yield Cluster(name="toy", stages={"pretrain": Resources(executor="toy")})
    executor_named.cache_clear()


@pytest.mark.slow
def test_jobs_of_another_backend_outlive_their_orchestrator_and_are_adopted(toy, home):
    with Training(home, RECIPE, toy, held_at=2) as training:
        process = training.start()
        entry = training.entry()
        training.reach(2)
        process.kill()
        process.wait()
        assert find_job(home, entry.stage).state is JobState.RUNNING
        training.book.update(entry.model_copy(update={"job": None, "log": None}))  # it died too early to write it
        training.release()
        until((training.out / RESULT).exists)
        training.follow().result()
        assert training.manifest().jobs == (entry.job,) and training.losses()
        assert training.entry().state is JobState.COMPLETED
        assert find_job(home, entry.stage).executor.log(entry, entry.stage, 0).exists()


@pytest.mark.slow
def test_cancelling_ends_the_jobs_of_another_backend(toy, home):
    with Training(home, RECIPE, toy, held_at=2) as training:
        followed, entry = training.follow(), training.entry()
        training.reach(2)
        assert [each.job for each in cancel_run(home, find_run(home, RECIPE.name)).ended] == [entry.job]
        assert find_process(process_of(entry)) is None
        with pytest.raises(JobError, match="was cancelled"):
            followed.result()
        assert training.entry().state is JobState.CANCELLED
