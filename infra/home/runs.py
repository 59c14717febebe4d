"""The runs of a HOME: what was asked, by which process, over which artifacts, and how it ended."""

from __future__ import annotations

import difflib
import logging
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from infra.processes import JobId, find_process, is_of_this_machine, now, this_process
from xclr.errors import StoreError
from xclr.recipe import Recipe
from xclr.store import write_atomically
from xclr.sweep.layout import Cell
from xclr.sweep.spec import Sweep, points

State = Literal["running", "completed", "failed", "cancelled"]
NOTHING_RAN = "nothing has run in this HOME; see --home and XCLR_HOME"
Shown = Literal["running", "completed", "failed", "cancelled", "interrupted"]


class RunRecord(BaseModel):
    """HOME/runs/<run>.json: what was asked and how it ended."""

    model_config = ConfigDict(frozen=True)
    run: str
    recipe: Recipe
    state: State
    started: datetime
    process: JobId  # the orchestrator
    digests: tuple[str, ...]  # of every planned stage
    flow_run: str | None = None  # Prefect's id
    cluster: str = "local"  # name, or path of the cluster file
    ended: datetime | None = None
    scores: str | None = None  # digest of the comparison
    sweep: Sweep | None = None  # what the run is of, where it is not of one recipe
    cells: tuple[Cell, ...] = ()  # the sweep's

    @property
    def called(self) -> str:
        """The name of what was run: that of the recipe, or of the sweep."""
        return self.recipe.name if self.sweep is None else self.sweep.name

    @property
    def names(self) -> frozenset[str]:
        """What a person may call it: by its id, or by what was run."""
        return frozenset({self.run, self.called})

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """What was run: the recipe, or those of the sweep's points."""
        return (self.recipe,) if self.sweep is None else tuple(each.recipe for each in points(self.sweep))


class Scan(NamedTuple):
    """The records of a HOME, oldest first, and what could not be read."""

    records: tuple[RunRecord, ...]
    faults: tuple[StoreError, ...]


def new_record(recipe: Recipe, digests: Iterable[str], flow_run: str | None = None, name: str = "") -> RunRecord:
    """The record of a run of this process that begins now; its id begins with `name`, else with the recipe's."""
    started = now()
    name = f"{name or recipe.name}-{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return RunRecord(
        run=name, recipe=recipe, state="running", started=started, process=this_process(),
        digests=tuple(map(str, digests)), flow_run=flow_run,
    )  # fmt: skip


def record_path(home: Path, run: str) -> Path:
    """Where a run's record is."""
    return home / "runs" / f"{run}.json"


def cancel_mark(home: Path, run: str) -> Path:
    """The file whose presence tells a run to stop and to end its jobs."""
    return home / "runs" / f"{run}.cancel"


def write_record(home: Path, record: RunRecord) -> None:
    """Write a run's record."""
    write_atomically(record_path(home, record.run), record.model_dump_json(indent=1))


def scan_runs(home: Path) -> Scan:
    """Every record that can be read, and a StoreError for each that cannot."""
    records, faults = [], []
    for path in sorted((home / "runs").glob("[!.]*.json")):
        try:
            records.append(RunRecord.model_validate_json(path.read_text()))
        except FileNotFoundError:
            continue  # removed meanwhile
        except (OSError, ValueError):
            remedy = f"it was written by another version; delete {path} once nothing it made is needed"
            faults.append(StoreError(f"{path} cannot be read as the record of a run", remedy))
    return Scan(tuple(sorted(records, key=lambda each: each.started)), tuple(faults))


def read_runs(home: Path) -> list[RunRecord]:
    """All runs, oldest first; warns of records that cannot be read."""
    records, faults = scan_runs(home)
    for fault in faults:
        logging.getLogger("xclr").warning("left out: %s", fault)
    return list(records)


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
    return runs_named(home, read_runs(home), name)[-1]


def runs_named(
    home: Path, records: Sequence[RunRecord], name: str | None, what: str = "run", remedy: str = NOTHING_RAN
) -> list[RunRecord]:
    """The record of that id, else those of that recipe or sweep, oldest first; without a name all.

    Raises StoreError with the nearest names, or with `remedy` where there are no records.
    """
    exact = [each for each in records if each.run == name]
    found = exact or [each for each in records if name is None or name in each.names]
    if not found:
        known = sorted({known for each in records for known in each.names})
        near = difflib.get_close_matches(name or "", known, n=3) or known[-3:]
        called = what if name is None else f"{what} {name!r}"
        raise StoreError(f"no {called} in {home}", "there are: " + ", ".join(near) if near else remedy)
    return found
