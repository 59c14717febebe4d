"""What jobs used, as Slurm's accounting has it: a pure parser of sacct, and the question to it."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from infra.slurm.queue import Accounts
from xclr.artifact import Usage

FORMAT = "JobID,State,ExitCode,ElapsedRaw,CPUTimeRAW,AllocTRES,TotalCPU,MaxRSS,NTasks,TRESUsageInTot"
SETTLES_IN_S = 6.0  # how long the accounts may lag behind the queue
LIVE = ("PENDING", "RUNNING", "REQUEUED")
KILLED = ("0:9", "9:0")  # exit codes of a step that SIGKILL ended, as sacct and the batch script have them
NEARLY_ALL = 0.9  # of the memory: it is sampled every half minute, so that the last rise may not be seen
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Row(NamedTuple):
    """A line of sacct: what was allocated, or, with a dot in `job` (4711.batch, 4711.0), a step and what it took."""

    job: str
    state: str
    exit_code: str
    elapsed: str
    cores: str
    tres: str
    total_cpu: str
    highest: str  # of a task
    tasks: str
    all_tasks: str

    @property
    def is_step(self) -> bool:
        """True for what ran in an allocation."""
        return "." in self.job

    @property
    def nodes(self) -> int:
        """How many it had."""
        return int(_amount(self.tres, "node") or 1)

    @property
    def asked_gb(self) -> float | None:
        """Memory that it had on each node, in GiB; None where Slurm does not count it."""
        whole = _amount(self.tres, "mem")
        return whole / 2**30 / self.nodes if whole else None

    @property
    def used_gb(self) -> float:
        """Memory of a step on a node, at its highest, in GiB: its tasks' own, which share the nodes evenly."""
        whole = _amount(self.all_tasks, "mem") or bytes_of(self.highest) * int(self.tasks or 1)
        return whole / 2**30 / self.nodes


def used(ids: Sequence[str], accounts: Accounts) -> Usage | None:
    """What the jobs of these numbers used, over all their requeues; None where nobody counts, or says so now."""
    deadline = time.monotonic() + SETTLES_IN_S
    while text := _ask(ids, accounts):
        rows = parse_rows(text)
        over = rows and not any(row.state.startswith(LIVE) for row in rows if not row.is_step)
        if over or time.monotonic() > deadline:
            return parse_usage(text)
        time.sleep(0.5)
    return None


def ran_out_of_memory(ids: Sequence[str], accounts: Accounts) -> bool:
    """True when a step of the jobs was killed while it had nearly all of its memory, or the accounts say so."""
    return killed_for_memory(_ask(ids, accounts) or "")


def killed_for_memory(text: str) -> bool:
    """The same of what sacct printed."""
    rows = parse_rows(text)
    asked = {row.job: row.asked_gb for row in rows if not row.is_step}
    most = {row.job: asked.get(row.job.partition(".")[0]) for row in rows if row.is_step}
    return any(row.state.startswith("OUT_OF_ME") for row in rows) or any(
        row.exit_code in KILLED and row.used_gb >= NEARLY_ALL * (most[row.job] or math.inf)
        for row in rows
        if row.is_step
    )


def parse_rows(text: str) -> list[Row]:
    """The lines of `sacct --duplicates --parsable2 --noheader --format FORMAT`."""
    parts = (line.split("|") for line in text.splitlines())
    return [Row(*each) for each in parts if len(each) == len(Row._fields) and each[0]]


def parse_usage(text: str) -> Usage | None:
    """The sum of the lines; None when there are none."""
    gpu_s = core_s = busy_s = memory = 0.0
    asked: list[float] = []
    jobs = set()
    for row in parse_rows(text):
        if row.is_step:
            busy_s += cpu_seconds(row.total_cpu)
            memory = max(memory, row.used_gb)
            continue
        jobs.add(row.job)
        gpu_s += float(row.elapsed or 0) * (_amount(row.tres, "gres/gpu") or 0)
        core_s += float(row.cores or 0)
        asked += [row.asked_gb] if row.asked_gb else []
    if not jobs:
        return None
    return Usage(
        gpu_hours=gpu_s / 3600,
        cpu_hours=core_s / 3600,
        cpu_efficiency=busy_s / core_s if core_s else None,
        jobs=len(jobs),
        memory_gb=memory or None,
        memory_asked_gb=max(asked, default=None),
    )


def bytes_of(text: str) -> float:
    """Of a number with a unit as Slurm writes it, such as 1.5G; 0 for none."""
    found = re.fullmatch(r"([0-9.]+)([KMGT]?)[nc]?", text)
    return float(found[1]) * UNITS[found[2]] if found else 0.0


def _amount(tres: str, name: str) -> float | None:
    """How much of a thing stands in cpu=8,gres/gpu=8,mem=500M,node=1."""
    found = re.search(rf"(?:^|,){re.escape(name)}=([0-9.]+[KMGT]?)", tres)
    return bytes_of(found[1]) if found else None


def cpu_seconds(text: str) -> float:
    """Seconds of [days-][hours:]minutes:seconds[.thousandths]."""
    days, _, rest = text.rpartition("-")
    parts = [float(each) for each in rest.split(":") if each]
    return float(int(days or 0) * 86400 + sum(each * 60**power for power, each in enumerate(reversed(parts))))


def _ask(ids: Sequence[str], accounts: Accounts) -> str | None:
    with suppress(OSError):
        return accounts.said("--duplicates", f"--jobs={','.join(ids)}", f"--format={FORMAT}")
    return None
