"""The parser of squeue and sacct: a line of every state, arrays, times, reasons."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.executors.executor import executor_of
from infra.executors.memory import tells_of_memory
from infra.executors.slurm import Slurm, sight
from infra.home.status import Job, Overview, status
from infra.ledger import Entry, GiveUp, JobState, Ledger, reconcile
from infra.processes import now
from infra.resources import Resources
from infra.slurm.accounting import cpu_seconds, killed_for_memory, parse_usage
from infra.slurm.queue import (
    SILENT_FOR_S,
    STATES,
    Queue,
    parse_sacct,
    parse_squeue,
    shown,
    slurm_ids,
    state_of,
    whole,
    why_waiting,
)
from infra.slurm.reasons import REASONS
from infra.slurm.submit import Order, clean_environment, submit
from infra.stagejob import StageJob
from xclr.recipe import RetriesConfig

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
    (queued,) = parse_squeue(f"4711|{raw}|1795620090|1:02|58:58|1795627290|n1|None|xclr-pretrain-1a2b\n")
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
    odd = "5|PENDING|N/A|0:00|UNLIMITED|N/A||(Resources)|a|b|c\n\nslurm_load_jobs error\n"
    first, second = parse_squeue(odd + "6|RUNNING|7|2-03:04:05|NOT_SET|7|n[1-2]|None|x")
    assert (first.name, first.submitted, first.remaining_s) == ("a|b|c", None, None)
    assert (second.elapsed_s, second.node) == (2 * 86400 + 3 * 3600 + 4 * 60 + 5, "n[1-2]")
    assert parse_sacct("8|RUNNING|7||None assigned|x")[0].node == ""


def waiting(word: str):
    """Of a job whose reason is this word."""
    return why_waiting(parse_squeue(f"5|PENDING|7|0:00|1:00|N/A||{word}|x")[0])


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("Priority", "higher priority"),
        ("(Resources)", "free nodes"),
        ("ReqNodeNotAvail, UnavailableNodes:n3", "(ReqNodeNotAvail)"),
        ("QOSMaxCpuPerUserLimit", "the QOS's cores are all in use"),
        ("AssocGrpGRES", "the account's GPUs are all in use"),
        ("AssocGrpCPURunMinutesLimit", "the account's cores are all in use"),
        ("SomethingNew", "SomethingNew"),
    ],
)
def test_what_starts_by_itself_has_a_reason_and_no_remedy(word, part):
    assert part in waiting(word).words and waiting(word).remedy == ""


@pytest.mark.parametrize(
    ("word", "part", "remedy"),
    [
        ("JobHeldUser", "held", "scontrol release 5"),
        ("(JobHeldAdmin)", "administrator", "ask them"),
        ("launch failed requeued held", "could not start", "scontrol release 5"),
        ("launch_failed_requeued_held", "could not start", "sinfo -R"),
        ("job requeue limit exceeded, requeued held", "could not start", "scontrol release 5"),
        ("JobHoldMaxRequeue", "requeued as often", "scontrol release 5"),
        ("DependencyNeverSatisfied", "job that failed", "xclr retry"),
        ("PartitionTimeLimit", "above its partition's", "change timeout_min"),
        ("QOSMaxWallDurationPerJobLimit", "more time than the QOS allows a job", "change timeout_min or qos"),
        ("QOSMaxMemoryPerJob", "more memory than the QOS allows a job", "change memory_gb or qos"),
        ("AssocMaxGRESPerJob", "more GPUs than the account allows a job", "change gpus or account"),
        ("QOSMinGRES", "fewer GPUs than the QOS wants", "change gpus or qos"),
        ("AssocGrpGRESMinutes", "the account's time for GPUs is used up", "change account"),
        ("InvalidQOS", "not valid", "change qos"),
    ],
)
def test_what_waits_for_a_person_has_a_remedy(word, part, remedy):
    found = waiting(word)
    assert part in found.words and remedy in found.remedy
    held = sight(whole(parse_squeue(f"5|PENDING|7|0:00|1:00|N/A||{word}|x")))
    assert (held.reason, held.remedy) == (found.words, found.remedy)


def test_every_remedy_names_what_a_cluster_file_has_and_a_running_job_waits_for_nothing():
    keys = {*Resources.model_fields, "sbatch.reservation", "sbatch.deadline"}
    for each in REASONS.values():
        for named in re.findall(r"change ([\w., ]+?) of its stage", each.remedy):
            assert set(re.split(r", | or ", named)) <= keys, each
    assert why_waiting(parse_squeue("5|RUNNING|7|0:00|1:00|7|n1|None|x")[0]).words == ""


def test_the_estimated_start_of_what_waits_is_seen():
    seen = parse_squeue("5|PENDING|7|0:00|1:00|1795620090||Resources|x\n6|PENDING|7|0:00|1:00|N/A||Resources|x")
    assert sight(whole(seen)).starts == datetime.fromtimestamp(1795620090, UTC)
    assert parse_squeue("5|RUNNING|7|0:09|1:00|1795620090|n1|None|x")[0].starts is None


def test_an_array_is_as_its_elements():
    lines = [f"7_{index}|{raw}|7|0:01|1:00|7|n1|None|x" for index, raw in enumerate(["COMPLETED", "FAILED", "RUNNING"])]
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
    queue.every_s, queue.accounts.there = 3600, False
    states = ["RUNNING", "PENDING", "COMPLETED", "FAILED"]
    lines = [f"4711_{index}|{raw}|7|0:01|1:00|7|n1|None|x" for index, raw in enumerate([*states, *["PENDING"] * 30])]
    queue.show(parse_squeue("\n".join([*lines, "47|RUNNING|7|0:01|1:00|7|n1|None|x"])))
    element = queue.find("slurm/4711_3")
    assert [each.job for each in element.elements] == ["4711_3"]
    assert (element.state, element.live) == (JobState.GONE, ())
    assert queue.find("slurm/4711_1").state is JobState.PENDING
    array = queue.find("slurm/4711")
    assert (len(array.elements), array.state) == (34, JobState.RUNNING)
    assert [each.job for each in queue.find("slurm/4711_3+47").elements] == ["4711_3", "47"]
    assert queue.find("slurm/4711_34") is queue.find("slurm/4712_3") is None


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """squeue and sacct that print what stands in a file each, fail where there is none, and count their calls."""
    for name in ("squeue", "sacct"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho . >> {program}.calls; cat {program}.err >&2; cat {program}.out\n")
        program.chmod(0o755)
        (tmp_path / f"{name}.err").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "squeue.out").write_text("")
    return tmp_path


def calls(programs: Path, name: str) -> int:
    path = programs / f"{name}.calls"
    return len(path.read_text().split()) if path.exists() else 0


def test_one_look_serves_all_processes_of_a_home_until_something_is_submitted(programs):
    (programs / "squeue.out").write_text("5|RUNNING|7|0:01|1:00|7|n1|None|x\n")
    queues = [Queue() for _ in range(8)]
    for each in queues:
        each.home, each.every_s = programs / "home", 3600
        each.looked = -each.every_s
        assert each.find("slurm/5").state is JobState.RUNNING
    assert calls(programs, "squeue") == 1
    queues[0].forget()
    assert queues[0].find("slurm/5") and calls(programs, "squeue") == 2
    (programs / "squeue.out").unlink()
    queues[1].forget()
    assert all(each.find("slurm/5").state is JobState.UNKNOWN for each in queues[1:2])
    queues[2].looked = -queues[2].every_s
    assert queues[2].find("slurm/5").state is JobState.UNKNOWN and calls(programs, "squeue") == 3


def test_a_sacct_that_fails_for_a_while_makes_no_job_absent(programs):
    queue = Queue()
    queue.every_s = queue.accounts.every_s = 0
    (programs / "sacct.err").write_text("sacct: error: Problem talking to the database: Connection refused\n")
    assert queue.find("slurm/5").state is JobState.UNKNOWN and not queue.answers
    with pytest.raises(OSError, match="Connection refused"):
        queue.named("x")  # else it would be submitted a second time
    (programs / "sacct.out").write_text("5|CANCELLED by 1000|7|3|n1|x\n")
    assert queue.find("slurm/5").state is JobState.CANCELLED and queue.answers
    assert queue.named("x") == ["5"]
    (programs / "sacct.out").unlink()
    assert queue.find("slurm/5").state is JobState.UNKNOWN
    queue.accounts.failed -= SILENT_FOR_S
    assert queue.find("slurm/5") is None, "who keeps accounts does not come back"


def test_where_there_are_no_accounts_the_queue_alone_counts(programs):
    queue = Queue()
    queue.every_s = queue.accounts.every_s = 0
    (programs / "sacct.err").write_text("Slurm accounting storage is disabled\n")
    assert queue.find("slurm/5") is None and queue.answers and queue.named("x") == []
    assert queue.find("slurm/6") is None and calls(programs, "sacct") == 1


def test_five_hundred_cells_are_arrays_as_long_as_slurm_takes_them_seen_by_one_look(programs):
    """MaxArraySize as large clusters have it; sbatch counts up and keeps what it was asked for."""
    cells, longest, at_once = 500, 201, 64
    answers = {
        "scontrol": f"echo 'MaxArraySize            = {longest}'",
        "sbatch": f"for script; do :; done; grep array= $script >> {programs}/arrays; wc -l < {programs}/arrays",
    }
    for name, does in answers.items():
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    jobs = tuple(StageJob(programs / f"{cell}", programs / f"{cell}/out", 1) for cell in range(cells))
    order = Order(jobs, programs / "jobs", "xclr-pretrain-s", "xclr", programs, 3, programs / "home", array=True)
    queue = Queue()
    queue.home = order.home
    *_, job = submit(order, Resources.model_validate({"executor": "slurm", "parallel": at_once}), queue)
    assert job == "slurm/1+2+3"
    asked = re.findall(r"--array=(\S+)", (programs / "arrays").read_text())
    assert asked == [
        f"0-{longest - 1}%{at_once}",
        f"0-{longest - 1}%{at_once}",
        f"0-{cells - 2 * longest - 1}%{at_once}",
    ]
    shows = [(each // longest + 1, each % longest) for each in range(cells)]
    states = ["RUNNING" if index < at_once else "PENDING" for _, index in shows]
    lines = (
        f"{array}_{index}|{state}|7|0:01|1:00|7|n1|None|x" for (array, index), state in zip(shows, states, strict=True)
    )
    (programs / "squeue.out").write_text("\n".join(lines))
    found = [queue.find(f"slurm/{array}_{index}").state for array, index in shows]
    assert [each is JobState.RUNNING for each in found] == [each == "RUNNING" for each in states]
    assert len(queue.find(job).elements) == cells and calls(programs, "squeue") == 1


@given(st.lists(st.sampled_from(sorted(EXPECTED)), min_size=1, max_size=12))
@pytest.mark.slow
def test_a_job_lives_as_long_as_any_of_its_elements(words):
    seen = whole(parse_squeue("\n".join(f"7_{i}|{raw}|7|0:01|1:00|7|n1|None|x" for i, raw in enumerate(words))))
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


REQUEUED = """\
9|PREEMPTED|0:0|100|800|billing=8,cpu=8,gres/gpu=8,mem=64G,node=2|00:00:00|||
9.batch|CANCELLED|0:15|100|800|cpu=8,mem=32G,node=1|00:01.500|90M|1|cpu=00:01,mem=90M
9.0|CANCELLED|0:15|100|800|cpu=8,gres/gpu=8,mem=64G,node=2|03:20.000|1500M|8|cpu=1,mem=8G
9|COMPLETED|0:0|260|2080|billing=8,cpu=8,gres/gpu=8,mem=64G,node=2|00:00:00|||
9.0|COMPLETED|0:0|260|2080|cpu=8,gres/gpu=8,mem=64G,node=2|1-00:00:00|1500M|8|cpu=1,mem=12G
"""


def test_usage_adds_up_requeues_and_what_the_steps_computed_and_took():
    usage = parse_usage(REQUEUED)
    assert usage.gpu_hours == pytest.approx(360 * 8 / 3600)
    assert usage.cpu_hours == pytest.approx(2880 / 3600)
    assert usage.cpu_efficiency == pytest.approx((201.5 + 86400) / 2880)
    assert usage.jobs == 1
    assert (usage.memory_gb, usage.memory_asked_gb) == (6, 32)
    assert cpu_seconds("01:02:03") == 3723


def test_a_line_that_is_no_job_is_no_usage():
    assert parse_usage("sacct: error: slurmdbd is not running") is None


OF_ONE_NODE = "9|FAILED|9:0|100|800|cpu=8,mem=500M,node=1|00:00:00|||\n9.batch|FAILED|{}|1|8|cpu=8|00:00|{}|1|\n"


@pytest.mark.parametrize(
    ("text", "lacked"),
    [
        (OF_ONE_NODE.format("0:9", "499M"), True),
        (OF_ONE_NODE.format("9:0", "470M"), True),
        (OF_ONE_NODE.format("0:9", "300M"), False),  # killed by a person, or by a rank's end
        (OF_ONE_NODE.format("1:0", "499M"), False),
        (OF_ONE_NODE.replace("mem=500M,", "").format("0:9", "499M"), False),  # Slurm does not count memory
        ("9|OUT_OF_MEMORY|0:125|1|8|cpu=8,node=1|00:00|||", True),
        ("", False),
    ],
)
def test_what_was_killed_with_nearly_all_of_its_memory_lacked_it(text, lacked):
    assert killed_for_memory(text) is lacked


@pytest.mark.parametrize(
    ("line", "lacked"),
    [
        ("slurmstepd-n1: error: StepId=12.0 exceeded memory limit (1234 > 1000), being killed", True),
        ("slurmstepd: error: Exceeded job memory limit", True),
        ("slurmstepd-n1: error: Detected 1 oom-kill event(s) in StepId=12.batch.", True),
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=12.0. Some of the step tasks have been OOM Killed.",
            True,
        ),
        ("srun: error: n1: task 3: Out Of Memory", True),
        ("[1.2] Memory cgroup out of memory: Killed process 99 (python)", True),
        ("MemoryError", True),
        ("OSError: [Errno 12] Cannot allocate memory", True),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", True),
        ("srun: error: n1: task 3: Killed", False),
        ("slurmstepd-n1: error: *** JOB 32 ON n1 CANCELLED AT 2026-11-25T16:54:54 DUE TO TIME LIMIT ***", False),
        ("step 5 of 300  a caption: out of memory", False),
    ],
)
def test_the_end_of_a_log_tells_of_memory(line, lacked, tmp_path):
    log = tmp_path / "12_0_log.out"
    log.write_text("x" * (1 << 15) + f"\n{line}\nsrun: error: n1: tasks 0-1: Killed\n")
    assert tells_of_memory([tmp_path / "none", log]) is lacked


def test_a_job_killed_for_its_memory_is_not_tried_again_and_needs_more(tmp_path, programs):
    """FAILED 9:0 is all that Slurm says without cgroups."""
    queue_line = f"5|FAILED|{int(time.time())}|0:01|1:00|7|n1|NonZeroExitCode|x\n"
    (programs / "squeue.out").write_text(queue_line)
    (programs / "sacct.err").write_text("Slurm accounting storage is disabled\n")
    out, log = tmp_path / "home/artifacts/pretrain/d", tmp_path / "5_0_log.out"
    out.mkdir(parents=True)
    entry = Entry(
        digest="d", kind="pretrain", stage="pretrain", run="r", attempt=1, owner="h/1/1", claimed=now(),
        job="slurm/5", name="x", log=str(log),
    )  # fmt: skip
    executor = Slurm()
    executor.queue.every_s = executor.queue.accounts.every_s = 0
    assert executor.state(entry, out) is JobState.GONE
    log.write_text("slurmstepd-n1: error: StepId=5.0 exceeded memory limit (12 > 10), being killed\n")
    state = executor.state(entry, out)
    assert state is JobState.OUT_OF_MEMORY
    (action,) = reconcile(Ledger((entry,), RetriesConfig(crashes=3)), {"slurm/5": state}, now())
    assert action == GiveUp("d", 1, "it needed more memory than it has")


def test_jobs_inherit_where_things_are_and_nothing_that_may_be_secret(monkeypatch):
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_KEY", "SLURM_CPU_BIND"):
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    kept = clean_environment()
    assert "hush" not in kept.values() and kept["NCCL_DEBUG"] == "INFO" and kept["PATH"] == os.environ["PATH"]
    assert not any(name.startswith(("SLURM_JOB", "SBATCH_", "SUBMITIT_")) for name in kept)
