"""MLflow is told what runs could not tell it: what they made, how far trainings came, and how they ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from infra.cluster import Tracking, load_cluster
from infra.home.costs import settle
from infra.home.ends import endings, goes_on
from infra.home.runs import RunRecord, page_of, read_runs, tracking_tags
from infra.home.swept import joined, read_swept, summary
from infra.ledger import Book
from infra.stage import commit
from infra.tracking.files import pages_of
from infra.tracking.metrics import Made
from infra.tracking.patient import UNTRACKED
from infra.tracking.tracker import DATA, Tracker, sweep_key
from xclr.artifact import Artifact
from xclr.errors import RecipeError, XclrError
from xclr.job import RESULT
from xclr.pipeline import pipeline
from xclr.stage import Stage
from xclr.store import Store
from xclr.sweep.layout import layout, values_of


class Told(NamedTuple):
    """What MLflow was told of a run: stages, points of its trainings' curves; and why not all, if so."""

    run: str
    stages: int
    points: int
    goes_on: bool  # a job of it lives
    fault: str = ""


def catch_up(home: Path, uri: str, artifacts: Path, records: Sequence[RunRecord]) -> Iterator[Told]:
    """Tell MLflow all of runs that are over, oldest first, and yield what each came to; what is there stays as it is.

    Raises what MLflow's client raises; what is wrong with one run's files is in what is yielded.
    """
    newest = {each.recipe.name: each.run for each in read_runs(home)}
    for record, digests in _shares(records):
        if not digests:  # a later one planned all of it
            (artifacts.parent / UNTRACKED / record.run).unlink(missing_ok=True)
            yield Told(record.run, 0, 0, goes_on=False)
            continue
        tracker = Tracker(uri, record.recipe, artifacts, tracking_tags(record), _tracking(record))
        tracker.points = values_of(record.cells)
        yield _CatchUp(record, Store(home), tracker).tell(digests, whole=newest[record.recipe.name] == record.run)


def _shares(records: Sequence[RunRecord]) -> list[tuple[RunRecord, frozenset[str]]]:
    """Each run with what it planned and no later one of its recipe did."""
    seen: set[tuple[str, str]] = set()
    found = []
    for record in reversed(records):
        own = frozenset((record.recipe.name, digest) for digest in record.digests) - seen
        found.append((record, frozenset(digest for _, digest in own)))
        seen |= own
    return found[::-1]


def _tracking(record: RunRecord) -> Tracking:
    """What the run's cluster file says of tracking; the defaults where it is gone."""
    try:
        return load_cluster(record.cluster).tracking
    except RecipeError:
        return Tracking()


class _CatchUp:
    """Tells all of one run."""

    def __init__(self, record: RunRecord, store: Store, tracker: Tracker) -> None:
        self.record, self.store, self.tracker = record, store, tracker
        self.book = Book(store.home)
        self.mark = tracker.mlflow.artifacts.parent / UNTRACKED / record.run

    def tell(self, digests: frozenset[str], *, whole: bool) -> Told:
        """Tell what became of these digests; of the data's and the sweep's end where the run is the newest of all."""
        stages, fault = 0, ""
        try:
            for stage in self._stages(digests):
                stages += self._tell_stage(stage)
            self._tell_pages(digests)
            self._tell_sweep()
            self.tracker.conclude()
        except XclrError as error:
            fault = str(error)
        ends = endings(self.store.home, digests)
        for each in ends:
            if each.run is not None and (whole or each.run != DATA):
                self.tracker.end(each.run, each.state, each.ended_ms)
        if not (fault or goes_on(ends)):
            self.mark.unlink(missing_ok=True)
        return Told(self.record.run, stages, self.tracker.curves.points, goes_on(ends), fault)

    def _stages(self, digests: frozenset[str]) -> Iterator[Stage]:
        record, store = self.record, self.store
        planned = pipeline(record.recipe, store) if record.sweep is None else layout(record.sweep, store).stages
        return (stage for stage in planned if stage.digest in digests)

    def _tell_stage(self, stage: Stage) -> bool:
        """Tell a stage, or how far its training came; True where all of it is new."""
        out = self.store.reference(stage.digest).path
        artifact = self.store.find(stage.digest) or self._adopt(stage, out)
        if artifact is None:
            if stage.kind.network:
                self.tracker.upload(stage, out)
            return False
        made = Made(artifact, self.store.manifest(artifact), self.book.usage(stage.digest))
        return self.tracker.record(stage, made)

    def _adopt(self, stage: Stage, out: Path) -> Artifact | None:
        """The output of a job that outlived its run."""
        if not (out / RESULT).exists():
            return None
        commit(self.store, self.book, stage, out)
        if (artifact := self.store.find(stage.digest)) is not None:
            gpus = load_cluster(self.record.cluster).resources_of(stage).gpus
            settle(self.book, stage, self.store.manifest(artifact), gpus)
        return artifact

    def _tell_pages(self, digests: frozenset[str]) -> None:
        """Give the networks' runs the pages that show their scores, where the run came to any."""
        page = page_of(self.store.home, self.record)
        if self.record.scores is not None and page is not None:
            stages = list(self._stages(digests))
            pages = pages_of(stages, self.store, self.record.scores, page)
            self.tracker.record_pages((str(each.digest) for each in stages if each.kind.network), pages)

    def _tell_sweep(self) -> None:
        """Tell what came of the cells, where the run itself could not."""
        sweep = self.record.sweep
        if sweep is not None and (self.mark.exists() or not self.tracker.has(sweep_key(sweep.name))):
            self.tracker.join_sweep(sweep.name, joined(self.record))
            self.tracker.record_sweep(sweep.name, summary(read_swept(self.store.home, self.record)))
