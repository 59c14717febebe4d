"""MLflow is told what runs could not tell it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from infra.home.runs import RunRecord, read_runs
from infra.ledger import Book
from infra.tracking.metrics import Made
from infra.tracking.patient import UNTRACKED
from infra.tracking.tracker import Tracker
from xclr.pipeline import pipeline
from xclr.stage import Stage
from xclr.store import Store
from xclr.sweep.layout import layout


def catch_up(home: Path, uri: str, artifacts: Path) -> None:
    """Log the finished stages of every run that left a mark in `artifacts`' folder; what is there is logged once.

    Raises what MLflow's client raises; the mark stays until all of a run is told.
    """
    records = {each.run: each for each in read_runs(home)}
    for mark in sorted((artifacts.parent / UNTRACKED).glob("*")):
        if record := records.get(mark.name):
            _tell(record, Store(home), uri, artifacts)
        mark.unlink()


def _tell(record: RunRecord, store: Store, uri: str, artifacts: Path) -> None:
    tags = {"prefect_flow_run": record.flow_run} if record.flow_run else {}
    tracker, book = Tracker(uri, record.recipe, artifacts, tags), Book(store.home)
    for stage in _stages(record, store):
        if artifact := store.find(stage.digest):
            tracker.record(stage, Made(artifact, store.manifest(artifact), book.usage(stage.digest)))


def _stages(record: RunRecord, store: Store) -> Iterator[Stage]:
    """Those that the run planned."""
    planned = pipeline(record.recipe, store) if record.sweep is None else layout(record.sweep, store).stages
    return (stage for stage in planned if stage.digest in record.digests)
