"""Tracking that holds up and fails no work: what MLflow cannot be told now it is told later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import TypeVar

from infra.tracking.files import Pages
from infra.tracking.metrics import Made
from infra.tracking.tracker import RunState, SweepSummary, Tracker
from xclr.stage import Stage

T = TypeVar("T")
AGAIN_AFTER_S = 30.0  # since MLflow was last found away
TRIES_AT_END = 3  # what fails goes behind the others, so that one call that never succeeds keeps none of them
UNTRACKED = "untracked"  # folder of STATE: an empty file for each run, until MLflow has been told how all of it ended


class PatientTracker:
    """A tracker whose calls never raise: what cannot be told is kept, and told before whatever is told next.

    The first miss is a warning to `say`; `away` is one that was seen already. `mark` is there from the beginning until
    all is told, so that `catch_up` knows a run that never could, whatever ended it. Threads may share it.
    """

    def __init__(
        self, tracker: Tracker, say: Callable[[str], object], mark: Path, away: Exception | None = None
    ) -> None:
        self.tracker, self.say, self.mark = tracker, say, mark
        self.kept: list[Callable[[], object]] = []
        self.missed_at, self.warned = -inf, False
        self.lock = threading.RLock()
        tracker.mlflow.say = say
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        if away is not None:
            self._miss(away)

    def record(self, stage: Stage, made: Made) -> None:
        """Log a finished stage."""
        self._tell(partial(self.tracker.record, stage, made))

    def follow(self, stage: Stage, out: Path) -> None:
        """Upload the new metrics of a running stage; those of a miss are in its spool."""
        self._ask(partial(self.tracker.follow, stage, out), None)

    def upload(self, stage: Stage, out: Path) -> None:
        """Upload what a training has logged that does not end well."""
        self._tell(partial(self.tracker.upload, stage, out))

    def end(self, key: str, state: RunState, ended_ms: int | None = None) -> None:
        """Bring a run to the state of what it shows."""
        self._tell(partial(self.tracker.end, key, state, ended_ms))

    def join_sweep(self, sweep: str, cells: Mapping[str, str]) -> None:
        """Tag the runs of a sweep's networks."""
        self._tell(partial(self.tracker.join_sweep, sweep, cells))

    def record_sweep(self, name: str, told: SweepSummary) -> None:
        """Log what came of a sweep."""
        self._tell(partial(self.tracker.record_sweep, name, told))

    def record_pages(self, digests: Iterable[str], pages: Pages) -> None:
        """Give the runs of networks the pages of a run."""
        self._tell(partial(self.tracker.record_pages, list(digests), pages))

    def experiment_url(self) -> str | None:
        """The recipe's experiment in the MLflow UI; None where no server answers."""
        return self._ask(self.tracker.experiment_url, None)

    def run_url(self, digest: str) -> str | None:
        """A run in the MLflow UI, likewise."""
        return self._ask(partial(self.tracker.run_url, digest), None)

    def compare_url(self, digests: Sequence[str]) -> str | None:
        """Runs side by side in the MLflow UI, likewise."""
        return self._ask(partial(self.tracker.compare_url, digests), None)

    def close(self, *, ended: bool) -> None:
        """Tell what was kept, but wait for an MLflow that is away no longer than for a few requests.

        The mark stays where that fails, and where not all of the run has `ended`: its jobs go on.
        """
        self.kept.append(self.tracker.conclude)
        for _ in range(min(TRIES_AT_END, len(self.kept))):
            self.missed_at = -inf
            self._ask(lambda: None, None)
        if ended and not self.kept:
            self.mark.unlink(missing_ok=True)

    def _tell(self, call: Callable[[], object]) -> None:
        self.kept.append(call)
        self._ask(lambda: None, None)

    def _ask(self, call: Callable[[], T], otherwise: T) -> T:
        """What a call answers once all that was kept is told; `otherwise` where MLflow is away."""
        if self._waits:
            return otherwise
        with self.lock:
            if self._waits:  # another thread has found it away, while this one waited for it
                return otherwise
            try:
                self._catch_up()
                return call()
            except Exception as error:  # noqa: BLE001 - whatever it is, no training is worth less for it
                self._miss(error)
                return otherwise

    @property
    def _waits(self) -> bool:
        return time.monotonic() - self.missed_at < AGAIN_AFTER_S

    def _catch_up(self) -> None:
        while self.kept:
            first = self.kept.pop(0)
            try:
                first()
            except BaseException:
                self.kept.append(first)  # behind the others, which may fare better
                raise

    def _miss(self, error: Exception) -> None:
        self.missed_at = time.monotonic()
        self.tracker.forget()
        if not self.warned:
            self.warned = True
            self.say(
                f"MLflow cannot be told now: {first_line(error)[:200]}\n"
                "  -> the work goes on; xclr sync, or the next xclr command, tells it all"
            )


def first_line(error: Exception) -> str:
    """What an error says in short."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
