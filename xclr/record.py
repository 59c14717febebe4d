"""The records of runs in a HOME: what was asked, over which artifacts, and how it ended."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from xclr.errors import StoreError
from xclr.recipe import Recipe
from xclr.sweep.layout import Cell
from xclr.sweep.spec import Sweep, points

State = Literal["running", "completed", "failed", "cancelled"]
NOTHING_RAN = "nothing has run in this HOME; see --home and XCLR_HOME"
RUNS = "runs"  # the folder of HOME


class Record(BaseModel):
    """HOME/runs/<run>.json, but for who runs it and where: what was asked and how it ended."""

    model_config = ConfigDict(frozen=True)
    run: str
    recipe: Recipe
    state: State
    started: datetime
    digests: tuple[str, ...]  # of every planned stage
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


R = TypeVar("R", bound=Record)


class Scan(NamedTuple, Generic[R]):
    """The records of a HOME, oldest first, and what could not be read."""

    records: tuple[R, ...]
    faults: tuple[StoreError, ...]


def record_path(home: Path, run: str) -> Path:
    """Where a run's record is."""
    return home / RUNS / f"{run}.json"


def scan_records(home: Path, kind: type[R]) -> Scan[R]:
    """Every record that can be read, and a StoreError for each that cannot."""
    records, faults = [], []
    for path in sorted((home / RUNS).glob("[!.]*.json")):
        try:
            records.append(kind.model_validate_json(path.read_text()))
        except FileNotFoundError:
            continue  # removed meanwhile
        except (OSError, ValueError):
            remedy = f"it was written by another version; delete {path} once nothing it made is needed"
            faults.append(StoreError(f"{path} cannot be read as the record of a run", remedy))
    return Scan(tuple(sorted(records, key=lambda each: each.started)), tuple(faults))


def read_records(home: Path, kind: type[R]) -> list[R]:
    """All records, oldest first; warns of those that cannot be read."""
    records, faults = scan_records(home, kind)
    for fault in faults:
        logging.getLogger("xclr").warning("left out: %s", fault)
    return list(records)


def records_named(
    home: Path, records: Sequence[R], name: str | None, what: str = "run", remedy: str = NOTHING_RAN
) -> list[R]:
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
