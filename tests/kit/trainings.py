"""The training of a small recipe, and those who wait for it."""

from __future__ import annotations

import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from infra.cluster import Cluster
from infra.ledger import Book, Entry
from infra.processes import processes_of
from infra.run import Run
from tests.kit.holds import hold, holdable, release
from tests.kit.orchestrator import orchestrate, train
from tests.kit.polling import until
from tests.kit.recipes import CLUSTER
from tests.kit.runs import begin_with_data, open_run, training_of
from xclr.artifact import Manifest
from xclr.recipe import Recipe
from xclr.store import Store
from xclr.training.spool import SPOOL, read_spool


class Training:
    """A training whose data are there, held at a step if asked; a context manager, with which all of it ends."""

    def __init__(self, home: Path, recipe: Recipe, cluster: Cluster = CLUSTER, held_at: int | None = None) -> None:
        begin_with_data(home)
        self.home, self.recipe, self.cluster = home, recipe, cluster
        self.store, self.book = Store(home), Book(home)
        self.stage = training_of(recipe, self.store)
        self.digest, self.out = str(self.stage.digest), self.store.begin(self.stage.digest)
        if held_at:
            hold(self.out, held_at)
        self.runs: list[Run] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.pool, self.stack = ThreadPoolExecutor(), ExitStack()

    def start(self) -> subprocess.Popen[bytes]:
        """A process that waits for it, and submits it where nobody did."""
        self.processes.append(orchestrate(self.home, self.recipe, self.cluster))
        return self.processes[-1]

    def follow(self) -> Future[None]:
        """The same in a thread of this process."""
        self.runs.append(open_run(self.home, recipe=self.recipe, cluster=self.cluster))
        return self.pool.submit(train, self.runs[-1])

    def entry(self, attempt: int = 1) -> Entry:
        """The attempt, once it has its job."""
        return until(
            lambda: (found := self.book.latest(self.digest)) and found.attempt == attempt and found.job and found
        )

    def job(self, attempt: int = 1) -> str:
        """The id of the attempt's job, as Slurm has it where it is Slurm's."""
        return str(self.entry(attempt).job).removeprefix("slurm/")

    def reach(self, step: int) -> None:
        """Wait until a step was logged."""
        until(lambda: step <= max((each.step for each in read_spool(self.out / SPOOL)), default=0))

    def release(self) -> None:
        """Let it go on from where it is held."""
        release(self.out)

    def manifest(self) -> Manifest:
        """Of what was trained."""
        return self.store.manifest(self.store.reference(self.stage.digest))

    def losses(self) -> list[float]:
        """The logged losses, each step once."""
        entries = list(read_spool(self.out / SPOOL))
        assert [each.step for each in entries] == list(range(1, len(entries) + 1)), "a step was lost or logged twice"
        return [each.metrics["train/loss"] for each in entries]

    def __enter__(self) -> Training:
        self.stack.enter_context(holdable())
        return self

    def __exit__(self, *error: object) -> None:
        for run in self.runs:
            run.stopping.set()
        for process in self.processes:
            process.kill()
            process.wait()
        entry = self.book.latest(self.digest)
        if entry is not None and entry.job is not None:
            for each in list(processes_of(entry.job)):  # Slurm's end with the test
                each.kill()
        self.pool.shutdown()
        self.stack.close()
