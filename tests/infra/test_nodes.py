"""Nodes that were lost, or whose GPU has a fault, are left out of a run's next tries, and that is said."""

from __future__ import annotations

import pytest

from infra.executors.executor import executor_named, outcome_of
from infra.executors.slurm import nodes_down
from infra.ledger import Entry, GiveUp, JobState, Ledger, Submit, reconcile
from infra.processes import now
from infra.slurm.submit import Order, executor_for
from infra.stage import decide
from infra.stagejob import StageJob
from tests.kit.recipes import CLUSTER
from tests.kit.runs import open_run, planned
from tests.kit.slurm import on_slurm
from xclr.errors import NodeError
from xclr.job import record_failure
from xclr.recipe import RetriesConfig

LOST = "a-machine/99/1795620090123"


def faulty(tmp_path, error: Exception) -> JobState | None:
    """How a job that failed by an error stands."""
    record_failure(tmp_path, error)
    return outcome_of(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        NodeError("cuda:3 of rank 3 on n7 is not in order: 5 of 100 bytes", "see"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
        RuntimeError("NCCL error ... GPU has fallen off the bus"),
    ],
)
def test_a_fault_of_the_gpu_is_one_of_the_node_which_is_named(error, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    assert faulty(tmp_path, error) is JobState.NODE_FAULT
    entry = Entry(
        digest="d", kind="pretrain", stage="pretrain", run="r", attempt=1, owner=LOST, claimed=now(), job="slurm/1"
    )
    assert executor_named("slurm").failed_nodes(entry, tmp_path) == ("n7",)


@pytest.mark.parametrize("words", ["CUDA error: device-side assert triggered", "CUDA out of memory", "loss is nan"])
def test_a_fault_of_the_job_is_not(words, tmp_path):
    assert faulty(tmp_path, RuntimeError(words)) is JobState.FAILED


def test_faults_of_nodes_are_tried_again_as_often_as_nodes_may_be_lost():
    retries = RetriesConfig(node_failures=2)
    entry = Entry(digest="d", kind="k", stage="s", run="r", attempt=1, owner=LOST, claimed=now(), job="slurm/1")
    (first,) = reconcile(Ledger((entry,), retries), {"slurm/1": JobState.NODE_FAULT}, now())
    assert first == Submit("d", 2, "its node has a fault", (JobState.NODE_FAULT,))
    again = entry.model_copy(update={"before": (JobState.NODE_FAIL, JobState.NODE_FAULT)})
    (last,) = reconcile(Ledger((again,), retries), {"slurm/1": JobState.NODE_FAULT}, now())
    assert isinstance(last, GiveUp)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_next_try_leaves_the_node_out_where_the_cluster_file_wants_that(wanted, home, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    run = open_run(home, cluster=CLUSTER.model_copy(update={"avoid_failed_nodes": wanted}))
    stage, lines = planned(run.recipe, run.store)["captions"], []
    out = run.store.begin(stage.digest)
    run.board.say = lines.append
    entry = Entry(
        digest=stage.digest,
        kind="captions",
        stage="captions",
        run=run.id,
        attempt=1,
        owner=LOST,
        claimed=now(),
        job=LOST,
    )
    assert run.book.claim(entry)
    record_failure(out, NodeError("cuda:0 of rank 0 on n7 is not in order: it is hot", ""))
    assert isinstance(decide(run, stage, out, set()), Submit)
    own = on_slurm(sbatch={"exclude": "n9"}).stages["pretrain"]
    order = Order((StageJob(out, out, 1),), tmp_path / "jobs", "x", "c", tmp_path, 0, tmp_path)
    script = executor_for(order, run.avoiding(own))._make_submission_file_text("true", "x")
    assert ("#SBATCH --exclude=n9,n7\n" in script) is wanted
    assert ("#SBATCH --exclude=n9\n" in script) is not wanted
    assert (lines == ["captions: its node has a fault; this run's next tries leave n7 out"]) is wanted


def test_of_several_nodes_those_that_are_not_up_are_meant(tmp_path, monkeypatch):
    program = tmp_path / "sinfo"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for states, expected in (
        ({"n1": "allocated", "n2": "down*", "n3": "mixed"}, ("n2",)),
        ({"n1": "idle", "n2": "drained", "n3": "idle*"}, ("n2", "n3")),
        ({"n1": "idle", "n2": "idle"}, ()),
        ({"n1": "idle"}, ("n1",)),  # up again
    ):
        said = "\\n".join(f"{name}|{state}" for name, state in states.items())
        program.write_text(f'#!/bin/sh\nprintf "{said}\\n"\n')
        program.chmod(0o755)
        assert nodes_down("n[1-3]") == expected, states
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nodes_down("n1") == (), "who cannot be asked blames nobody"
