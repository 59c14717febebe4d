"""What an operator asks of big sweeps, in CPU seconds of the command: the peer is what an answer may take."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.home.runs import new_record, write_record
from infra.ledger import Book, Entry, JobState
from infra.processes import now
from tests.bench.measure import Figure
from xclr.store import Store
from xclr.sweep.layout import layout
from xclr.sweep.load import load_sweep

ALLOWED_S = 3.0
CELLS, ENTRIES = 500, 5_000
FIELD = "objective.target_temperature"
VALUES = [round(0.01 + 0.001 * step, 3) for step in range(CELLS)]


def figures() -> Iterator[Figure]:
    """The plan of a sweep of the emoji, and the status of a HOME whose ledger it filled."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        fill(home)
        grid = f"{FIELD}={','.join(map(str, VALUES))}"
        asked = {"sweep --plan": ["sweep", "emoji", "--grid", grid, "--plan"], "status": ["status"]}
        for name, arguments in asked.items():
            title = f"xclr {name}, {CELLS} cells, {ENTRIES:,} ledger entries / {ALLOWED_S:.0f} s"
            yield Figure(title, spent([*arguments, "--home", folder]), ALLOWED_S, 1.0)


def fill(home: Path) -> None:
    """A run of the sweep whose jobs failed."""
    sweep = load_sweep("emoji", {"grid": {FIELD: VALUES}}, ())
    swept = layout(sweep, Store(home))
    record = new_record(sweep.recipe, [stage.digest for stage in swept.stages])
    write_record(home, record.model_copy(update={"state": "failed", "sweep": sweep, "cells": swept.cells}))
    for number, stage in enumerate(swept.stages[:ENTRIES]):
        own = {"digest": stage.digest, "kind": stage.kind.name, "stage": stage.name, "run": record.run}
        times = {"claimed": now() - timedelta(minutes=5), "ended": now()}
        entry = Entry(**own, **times, attempt=1, owner="host/1/1", job=f"slurm/7_{number}", state=JobState.FAILED)
        assert Book(home).claim(entry)


def spent(arguments: list[str]) -> float:
    """CPU seconds of a command, the second time."""
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "xclr", *arguments], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
