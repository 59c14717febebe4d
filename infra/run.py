"""An open run: what stages are made with."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal

from infra import processes
from infra.cluster import Cluster
from infra.executors.snapshot import freeze
from infra.home.runs import RunRecord, cancel_mark, write_record
from infra.ledger import Book
from infra.mode import Mode
from infra.progress import Board
from infra.resources import Resources, cores
from infra.tracking.patient import PatientTracker
from xclr.errors import XclrError
from xclr.ownership import guarded
from xclr.store import Store


class Cores:
    """The machine's cores, shared by the stages this process runs at once."""

    def __init__(self, total: int) -> None:
        self.free, self.total = total, total
        self.changed = threading.Condition()

    @contextmanager
    def taken(self, wanted: int) -> Iterator[None]:
        """Hold cores, at most all there are."""
        wanted = min(wanted, self.total)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= wanted)
            self.free -= wanted
        try:
            yield
        finally:
            with self.changed:
                self.free += wanted
                self.changed.notify_all()


class Run:
    """One run of a recipe: where it keeps things, what it runs on, what it shows and tracks."""

    def __init__(
        self, record: RunRecord, store: Store, cluster: Cluster, mode: Mode, tracker: PatientTracker, board: Board
    ) -> None:
        self.record, self.recipe, self.id = record, record.recipe, record.run
        self.store, self.cluster, self.mode = store, cluster, mode
        self.tracker, self.board = tracker, board
        self.book = Book(store.home)
        self.cores = Cores(cores())
        self.stopping = threading.Event()
        self.ending, self.has_ended_jobs = threading.Lock(), False  # once it was cancelled
        self.avoided: tuple[str, ...] = ()  # nodes
        self.outcomes: dict[str, XclrError | None] = {}  # of what levels made, by digest: why it could not be made
        self.save()

    @cached_property
    def code(self) -> Path:
        """What this run's jobs run: the code as it is when the first of them is submitted."""
        with guarded():
            return freeze(self.store.home)

    @property
    def cancelled(self) -> bool:
        """True once someone asked that the run and its jobs end."""
        return cancel_mark(self.store.home, self.id).exists()

    @property
    def should_stop(self) -> bool:
        """True when nothing new may begin."""
        return self.stopping.is_set() or self.cancelled

    def avoid(self, nodes: Iterable[str]) -> tuple[str, ...]:
        """Leave nodes out of what this run submits from now on, where the cluster file wants that; the new ones."""
        with self.ending:
            new = tuple(each for each in nodes if self.cluster.avoid_failed_nodes and each not in self.avoided)
            self.avoided += new
        return new

    def avoiding(self, resources: Resources) -> Resources:
        """Resources without the nodes that are left out."""
        if not self.avoided:
            return resources
        excluded = [str(resources.sbatch["exclude"])] if "exclude" in resources.sbatch else []
        sbatch = {**resources.sbatch, "exclude": ",".join([*excluded, *self.avoided])}
        return resources.model_copy(update={"sbatch": sbatch})

    def save(self, **changes: object) -> None:
        """Write the run's record."""
        self.record = self.record.model_copy(update=changes)
        write_record(self.store.home, self.record)

    def close(self, state: Literal["completed", "failed"]) -> None:
        """Write how the run ended, and when; a failed run that was told to end was cancelled."""
        cancelled = state == "failed" and self.cancelled
        self.save(state="cancelled" if cancelled else state, ended=processes.now())
        cancel_mark(self.store.home, self.id).unlink(missing_ok=True)
