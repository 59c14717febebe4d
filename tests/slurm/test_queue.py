"""The parser of squeue and sacct: a line of every state, arrays, times, reasons."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.executors.executor import executor_of
from infra.executors.slurm import sight
from infra.home.status import Job, Overview, status
from infra.ledger import Entry, JobState
from infra.slurm.accounting import cpu_seconds, parse_usage
from infra.slurm.queue import (
    STATES,
    Queue,
    parse_sacct,
    parse_squeue,
    plain_reason,
    shown,
    slurm_ids,
    state_of,
    whole,
)
from infra.slurm.submit import (
    clean_environment,
)

pytestmark = pytest.mark.pure
EXPECTED = {  # every state of man squeue and man sacct, 22.05
    "BOOT_FAIL": JobState.NODE_FAIL,
    "CANCELLED": JobState.CANCELLED,
    "COMPLETED": JobState.GONE,
    "CONFIGURING": JobState.PENDING,
    "COMPLETING": JobState.RUNNING,
    "DEADLINE": JobState.TIMEOUT,
    "FAILED": JobState.GONE,
    "NODE_FAIL": JobState.NODE_FAIL,
    "OUT_OF_MEMORY": JobState.OUT_OF_MEMORY,
    "PENDING": JobState.PENDING,
    "PREEMPTED": JobState.PREEMPTED,
    "RUNNING": JobState.RUNNING,
    "RESV_DEL_HOLD": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "RESIZING": JobState.RUNNING,
    "REVOKED": JobState.CANCELLED,
    "SIGNALING": JobState.RUNNING,
    "SPECIAL_EXIT": JobState.PENDING,
    "STAGE_OUT": JobState.RUNNING,
    "STOPPED": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "TIMEOUT": JobState.TIMEOUT,
}


@pytest.mark.parametrize("raw", EXPECTED)
def test_every_state_is_known_to_both_readers(raw):
    assert set(EXPECTED) == set(STATES)
    (queued,) = parse_squeue(f"4711|{raw}|1795620090|1:02|58:58|n1|None|xclr-pretrain-1a2b\n")
    (ended,) = parse_sacct(f"4711|{raw}|1795620090|62|n1|xclr-pretrain-1a2b\n")
    for seen in (queued, ended):
        assert seen.state is EXPECTED[raw]
        assert (seen.job, seen.name, seen.node, seen.elapsed_s) == ("4711", "xclr-pretrain-1a2b", "n1", 62)
        assert seen.submitted == datetime.fromtimestamp(1795620090, UTC)
    assert queued.remaining_s == 58 * 60 + 58 and ended.remaining_s is None


def test_words_with_an_addition_and_words_nobody_knows():
    assert state_of("CANCELLED by 1000") is state_of("CANCELLED+") is JobState.CANCELLED
    assert state_of("DREAMING") is state_of("") is JobState.UNKNOWN


def test_times_names_and_lines_that_are_odd():
    odd = "5|PENDING|N/A|0:00|UNLIMITED||(Resources)|a|b|c\n\nslurm_load_jobs error\n"
    first, second = parse_squeue(odd + "6|RUNNING|7|2-03:04:05|NOT_SET|n[1-2]|None|x")
    assert (first.name, first.submitted, first.remaining_s) == ("a|b|c", None, None)
    assert (second.elapsed_s, second.node) == (2 * 86400 + 3 * 3600 + 4 * 60 + 5, "n[1-2]")
    assert parse_sacct("8|RUNNING|7||None assigned|x")[0].node == ""


def test_reasons_in_plain_words():
    line = "5|PENDING|7|0:00|1:00||{}|x"
    for word, part in (
        ("Priority", "higher priority"),
        ("(Resources)", "free nodes"),
        ("QOSMaxCpuPerUser", "QOSMaxCpu"),
    ):
        assert part in plain_reason(parse_squeue(line.format(word))[0])
    assert plain_reason(parse_squeue(line.replace("PENDING", "RUNNING").format("None"))[0]) == ""
    node = "ReqNodeNotAvail, UnavailableNodes:n3"
    assert "(ReqNodeNotAvail)" in plain_reason(parse_squeue(line.format(node))[0])


def test_an_array_is_as_its_elements():
    lines = [f"7_{index}|{raw}|7|0:01|1:00|n1|None|x" for index, raw in enumerate(["COMPLETED", "FAILED", "RUNNING"])]
    seen = whole(parse_squeue("\n".join(lines)))
    assert seen.state is JobState.RUNNING and len(seen.live) == 1 and not seen.is_ending
    assert shown(seen.elements) == (2, 1, 0)
    assert whole(seen.elements[:2]).state is JobState.GONE and whole(seen.elements[:2]).is_ending
    assert whole(()).state is JobState.UNKNOWN
    entry = Entry(
        digest="d", kind="embeddings", stage="embeddings", run="r", attempt=1, owner="h/1/1",
        claimed=seen.elements[0].submitted, job="slurm/7", name="x",
    )  # fmt: skip
    line = status(Overview((), (Job(entry, Path("/nowhere"), seen.state, sight(seen)),))).jobs[0]
    assert (line.job_id, line.array) == ("7", "2 of 3 ended, 1 running, 0 waiting")
    assert (line.node, line.elapsed_s, line.remaining_s) == ("n1", 1, 60)
    assert slurm_ids("slurm/7+8") == ("7", "8") and executor_of("slurm/7+8").call("slurm/7+8") == "Slurm job 7 + 8"


def test_an_element_is_found_alone_and_the_array_as_a_whole():
    queue = Queue()
    queue.every_s = 3600
    queue.accounts = False
    states = ["RUNNING", "PENDING", "COMPLETED", "FAILED"]
    lines = [f"4711_{index}|{raw}|7|0:01|1:00|n1|None|x" for index, raw in enumerate([*states, *["PENDING"] * 30])]
    queue.seen, queue.looked = parse_squeue("\n".join([*lines, "47|RUNNING|7|0:01|1:00|n1|None|x"])), time.monotonic()
    element = queue.find("slurm/4711_3")
    assert [each.job for each in element.elements] == ["4711_3"]
    assert (element.state, element.live) == (JobState.GONE, ())
    assert queue.find("slurm/4711_1").state is JobState.PENDING
    array = queue.find("slurm/4711")
    assert (len(array.elements), array.state) == (34, JobState.RUNNING)
    assert [each.job for each in queue.find("slurm/4711_3+47").elements] == ["4711_3", "47"]
    assert queue.find("slurm/4711_34") is queue.find("slurm/4712_3") is None


@given(st.lists(st.sampled_from(sorted(EXPECTED)), min_size=1, max_size=12))
@pytest.mark.slow
def test_a_job_lives_as_long_as_any_of_its_elements(words):
    seen = whole(parse_squeue("\n".join(f"7_{i}|{raw}|7|0:01|1:00|n1|None|x" for i, raw in enumerate(words))))
    lives = {JobState.PENDING, JobState.RUNNING}
    assert (seen.state in lives) == any(EXPECTED[raw] in lives for raw in words)
    assert sum(shown(seen.elements)) == len(words)


FIELDS = st.lists(
    st.text(max_size=12) | st.sampled_from(["RUNNING", "7", "1-02:03:04", "²:03"]), min_size=5, max_size=9
)


@given(FIELDS)
def test_no_output_upsets_the_readers(fields):
    line = "|".join(fields)
    for seen in (*parse_squeue(line), *parse_sacct(line)):
        assert seen.state in JobState and seen.elapsed_s >= 0


def test_usage_adds_up_requeues_and_what_the_steps_computed():
    rows = [
        "9|PREEMPTED|100|800|billing=8,cpu=8,gres/gpu=8,node=1|00:00:00",
        "9.batch|CANCELLED|100|800|cpu=8|00:01.500",
        "9.0|CANCELLED|100|800|cpu=8,gres/gpu=8|03:20.000",
        "9|COMPLETED|260|2080|billing=8,cpu=8,gres/gpu=8,node=1|00:00:00",
        "9.0|COMPLETED|260|2080|cpu=8,gres/gpu=8|1-00:00:00",
    ]
    usage = parse_usage("\n".join(rows))
    assert usage.gpu_hours == pytest.approx(360 * 8 / 3600)
    assert usage.cpu_hours == pytest.approx(2880 / 3600)
    assert usage.cpu_efficiency == pytest.approx((201.5 + 86400) / 2880)
    assert usage.jobs == 1
    assert cpu_seconds("01:02:03") == 3723


def test_a_line_that_is_no_job_is_no_usage():
    assert parse_usage("sacct: error: slurmdbd is not running") is None


def test_jobs_inherit_where_things_are_and_nothing_that_may_be_secret(monkeypatch):
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_KEY", "SLURM_CPU_BIND"):
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    kept = clean_environment()
    assert "hush" not in kept.values() and kept["NCCL_DEBUG"] == "INFO" and kept["PATH"] == os.environ["PATH"]
    assert not any(name.startswith(("SLURM_JOB", "SBATCH_", "SUBMITIT_")) for name in kept)
