"""What Prefect shows of a stage's job."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from infra.executors.slurm import Slurm
from infra.ledger import Entry
from infra.slurm.queue import parse_squeue
from tasks.make import job_words

STARTS = datetime(2026, 11, 26, 14, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("state", "start", "reason", "words"),
    [
        ("RUNNING", "7", "None", "Slurm job 5"),
        ("PENDING", "N/A", "Priority", "Slurm job 5"),
        (
            "PENDING", str(int(STARTS.timestamp())), "Resources",
            f"Slurm job 5, to start {STARTS.astimezone():%d %b %H:%M}",
        ),
        ("PENDING", "N/A", "JobHeldUser", "Slurm job 5, will not start by itself"),
    ],
)  # fmt: skip
def test_a_job_is_named_with_what_is_known_of_its_start(state, start, reason, words):
    executor = Slurm()
    executor.queue.every_s = 3600
    submitted = int(STARTS.timestamp())
    executor.queue.show(parse_squeue(f"5|{state}|{submitted}|0:01|1:00|{start}|n1|{reason}|x"))
    entry = Entry(
        digest="d", kind="pretrain", stage="pretrain", run="r", attempt=1, owner="h/1/1", claimed=STARTS, job="slurm/5",
        name="x",
    )  # fmt: skip
    assert job_words(executor, entry) == words
