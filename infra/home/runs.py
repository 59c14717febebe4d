"""The runs of a HOME: who runs them, where, and how they stand."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from infra.processes import JobId, find_process, is_of_this_machine, now, this_process
from infra.tracking.described import source_tags
from xclr.recipe import Recipe
from xclr.record import RUNS, Record, Scan, read_records, record_path, records_named, scan_records
from xclr.store import write_atomically

PAGES = "pages"  # the folder of HOME
Shown = Literal["running", "completed", "failed", "cancelled", "interrupted"]


class RunRecord(Record):
    """HOME/runs/<run>.json: what was asked, by which process, and how it ended."""

    process: JobId  # the orchestrator
    flow_run: str | None = None  # Prefect's id
    cluster: str = "local"  # name, or path of the cluster file
    page: str | None = None  # of the comparison: a file of HOME/pages
    reason: str = ""  # why it ended before any stage could be planned


def new_record(recipe: Recipe, digests: Iterable[str], flow_run: str | None = None, name: str = "") -> RunRecord:
    """The record of a run of this process that begins now; its id begins with `name`, else with the recipe's."""
    started = now()
    name = f"{name or recipe.name}-{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return RunRecord(
        run=name, recipe=recipe, state="running", started=started, process=this_process(),
        digests=tuple(map(str, digests)), flow_run=flow_run,
    )  # fmt: skip


def tracking_tags(record: RunRecord) -> dict[str, str]:
    """What MLflow is told of the run that made something."""
    flow_run = {"prefect_flow_run": record.flow_run} if record.flow_run else {}
    return source_tags(record.run, f"xclr {'run' if record.sweep is None else 'sweep'} {record.called}") | flow_run


def cancel_mark(home: Path, run: str) -> Path:
    """The file whose presence tells a run to stop and to end its jobs."""
    return home / RUNS / f"{run}.cancel"


def write_record(home: Path, record: RunRecord) -> None:
    """Write a run's record."""
    write_atomically(record_path(home, record.run), record.model_dump_json(indent=1))


def page_of(home: Path, record: RunRecord) -> Path | None:
    """Where the page of a run's comparison is, if it is there."""
    path = home / PAGES / (record.page or "")
    return path if path.is_file() else None


def scan_runs(home: Path) -> Scan[RunRecord]:
    """Every record that can be read, and a StoreError for each that cannot."""
    return scan_records(home, RunRecord)


def read_runs(home: Path) -> list[RunRecord]:
    """All runs, oldest first; warns of records that cannot be read."""
    return read_records(home, RunRecord)


def run_of_this_process(home: Path) -> RunRecord | None:
    """The run that this process opened, the last of several; None where it opened none."""
    own = this_process()
    return next((each for each in reversed(read_runs(home)) if each.process == own), None)


def shown_state(record: RunRecord) -> Shown:
    """How a run stands: a running one whose process is gone was interrupted."""
    gone = is_of_this_machine(record.process) and find_process(record.process) is None
    return "interrupted" if record.state == "running" and gone else record.state


def wanted(home: Path, records: Iterable[RunRecord]) -> frozenset[str]:
    """Digests that the live runs among the records plan; a run that is being cancelled wants nothing."""
    live = (each for each in records if shown_state(each) == "running" and not cancel_mark(home, each.run).exists())
    return frozenset(digest for each in live for digest in each.digests)


def last_run(home: Path, name: str | None) -> RunRecord:
    """The newest run, or the newest of that id, recipe or sweep; raises StoreError when there is none."""
    return records_named(home, read_runs(home), name)[-1]
