"""What jobs used, as Slurm's accounting has it: a pure parser of sacct, and the question to it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from infra.slurm.queue import ask
from xclr.artifact import Usage

FORMAT = "JobID,State,ElapsedRaw,CPUTimeRAW,AllocTRES,TotalCPU"
SETTLES_IN_S = 6.0  # how long the accounts may lag behind the queue
LIVE = ("PENDING", "RUNNING", "REQUEUED")


def used(ids: Sequence[str]) -> Usage | None:
    """What the jobs of these numbers used, over all their requeues; None where nobody counts."""
    deadline = time.monotonic() + SETTLES_IN_S
    while (text := _ask(ids)) is not None:
        rows = [line.split("|") for line in text.splitlines() if line.count("|") == FORMAT.count(",")]
        over = rows and not any(row[1].startswith(LIVE) for row in rows if "." not in row[0])
        if over or time.monotonic() > deadline:
            return parse_usage(text)
        time.sleep(0.5)
    return None


def parse_usage(text: str) -> Usage | None:
    """The lines of `sacct --duplicates --parsable2 --noheader --format FORMAT`; None when there are none.

    A row without a dot is what was allocated, a row with one (4711.batch, 4711.0) is a step and what it computed.
    """
    gpu_s = core_s = busy_s = 0.0
    jobs = set()
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) != FORMAT.count(",") + 1 or not parts[0]:
            continue
        job, _, elapsed, cores, tres, total = parts
        if "." in job:
            busy_s += cpu_seconds(total)
            continue
        jobs.add(job)
        gpus = re.search(r"gres/gpu=(\d+)", tres)
        gpu_s += float(elapsed or 0) * (int(gpus.group(1)) if gpus else 0)
        core_s += float(cores or 0)
    if not jobs:
        return None
    efficiency = busy_s / core_s if core_s else None
    return Usage(gpu_hours=gpu_s / 3600, cpu_hours=core_s / 3600, cpu_efficiency=efficiency, jobs=len(jobs))


def cpu_seconds(text: str) -> float:
    """Seconds of [days-][hours:]minutes:seconds[.thousandths]."""
    days, _, rest = text.rpartition("-")
    parts = [float(each) for each in rest.split(":") if each]
    return float(int(days or 0) * 86400 + sum(each * 60**power for power, each in enumerate(reversed(parts))))


def _ask(ids: Sequence[str]) -> str | None:
    jobs, fields = f"--jobs={','.join(ids)}", f"--format={FORMAT}"
    try:
        return ask("sacct", "--duplicates", "--parsable2", "--noheader", jobs, fields)
    except OSError:
        return None
