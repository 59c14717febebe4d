"""MLflow is told what runs could not tell it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from infra.cluster import Tracking, load_cluster
from infra.home.runs import RunRecord, page_of, read_runs
from infra.ledger import Book
from infra.tracking.files import pages_of
from infra.tracking.metrics import Made
from infra.tracking.patient import UNTRACKED
from infra.tracking.tracker import Tracker
from xclr.errors import RecipeError
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
    tracker, book = Tracker(uri, record.recipe, artifacts, tags, _tracking(record)), Book(store.home)
    stages = list(_stages(record, store))
    for stage in stages:
        if artifact := store.find(stage.digest):
            tracker.record(stage, Made(artifact, store.manifest(artifact), book.usage(stage.digest)))
    page = page_of(store.home, record)
    if record.scores is not None and page is not None:
        pages = pages_of(stages, store, record.scores, page)
        tracker.record_pages((str(each.digest) for each in stages if each.kind.network), pages)


def _tracking(record: RunRecord) -> Tracking:
    """What the run's cluster file says of tracking; the defaults where it is gone."""
    try:
        return load_cluster(record.cluster).tracking
    except RecipeError:
        return Tracking()


def _stages(record: RunRecord, store: Store) -> Iterator[Stage]:
    """Those that the run planned."""
    planned = pipeline(record.recipe, store) if record.sweep is None else layout(record.sweep, store).stages
    return (stage for stage in planned if stage.digest in record.digests)
