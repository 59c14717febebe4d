"""`ensure`: the one way a stage's output comes to be. Claim, submit or attach, wait, commit, track."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from infra import ledger, slurm
from infra.cluster import Cluster, cores
from infra.ledger import (
    Adopt,
    Attach,
    Book,
    Entry,
    GiveUp,
    JobState,
    Ledger,
    Submit,
    find_process,
    reconcile,
    this_process,
)
from infra.plan import observe
from infra.progress import Board
from infra.tracking import Tracker
from xclr.artifact import Artifact, Manifest
from xclr.errors import JobError, StoreError, XclrError
from xclr.job import FAILURE, RESULT, Failure, Result, record_failure, run_stage
from xclr.recipe import Recipe
from xclr.stages import Stage, pipeline
from xclr.store import Store, only_writer, write_atomically

Mode = Literal["cached", "retry", "force", "read-only"]
POLL_S = 0.3
LOG_LINES = 15
MOST_ATTEMPTS = 3  # of one run at a job that ends without a word


class RunRecord(BaseModel):
    """HOME/runs/<run>.json: what was asked and how it ended."""

    model_config = ConfigDict(frozen=True)
    run: str
    recipe: Recipe
    state: Literal["running", "completed", "failed"]
    started: datetime
    scores: str | None = None  # digest of the comparison


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
        self, recipe: Recipe, store: Store, cluster: Cluster, mode: Mode, tracker: Tracker, board: Board
    ) -> None:
        self.recipe, self.store, self.cluster, self.mode = recipe, store, cluster, mode
        self.tracker, self.board = tracker, board
        self.book = Book(store.home)
        self.cores = Cores(cores())
        self.stopping = threading.Event()
        started = ledger.now()
        self.id = f"{recipe.name}-{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.record = RunRecord(run=self.id, recipe=recipe, state="running", started=started)
        self.save()

    def save(self, **changes: object) -> None:
        """Write the run's record."""
        self.record = self.record.model_copy(update=changes)
        write_atomically(self.store.home / "runs" / f"{self.id}.json", self.record.model_dump_json(indent=1))

    def cancel_jobs(self) -> int:
        """End the jobs of this run's stages, but for those that another live run waits for; returns how many."""
        me, digests = this_process(), {str(stage.digest) for stage in pipeline(self.recipe, self.store)}
        mine = [
            entry.job
            for entry in self.book.read().entries
            if entry.digest in digests and (entry.owner == me or find_process(entry.owner) is None)
        ]
        return sum(1 for job in mine if job not in {None, me} and slurm.cancel(str(job)))


def read_runs(home: Path) -> list[RunRecord]:
    """All runs, oldest first."""
    paths = (home / "runs").glob("*.json")
    return sorted((RunRecord.model_validate_json(path.read_text()) for path in paths), key=lambda each: each.started)


def ensure(run: Run, stage: Stage) -> Artifact:
    """The stage's artifact: found and verified, or made; tracked either way. Raises XclrError if it cannot be made."""
    artifact = run.store.find(stage.digest)
    if artifact is not None:
        entry = run.book.latest(stage.digest)
        run.tracker.record(stage, artifact, run.store.manifest(artifact), entry.run if entry else "the store")
        run.board.finished(stage.name, "hit")
        return artifact
    if run.mode == "read-only":
        raise StoreError(f"{stage.name} is not in {run.store.home}", "run without --mode read-only")
    artifact = _make(run, stage, run.store.begin(stage.digest))
    manifest = run.store.manifest(artifact)
    run.tracker.record(stage, artifact, manifest)
    run.board.finished(stage.name, f"{manifest.cost.wall_s:.1f} s")
    return artifact


def _make(run: Run, stage: Stage, out: Path) -> Artifact:
    """Go from what the ledger says to a committed artifact, whoever does the work."""
    waited_for: set[int] = set()
    while (artifact := run.store.find(stage.digest)) is None:
        if run.stopping.is_set():
            raise JobError(
                f"{stage.name}: stopped before its end", "run the recipe again: what is running is waited for"
            )
        match _next(run, stage, out):
            case Submit() if len(waited_for) >= MOST_ATTEMPTS:
                raise _failure(run, stage, out)
            case Submit(attempt=attempt, reason=reason):
                if attempt > 1:
                    run.board.say(f"{stage.name}: made again, {reason}")
                waited_for.add(attempt)
                _submit(run, stage, out, attempt)
            case Attach():
                run.tracker.follow(stage, out)
                time.sleep(POLL_S)
            case Adopt():
                _commit(run, stage, out)
            case GiveUp(attempt=attempt) if attempt in waited_for or run.mode == "cached":
                raise _failure(run, stage, out)
            case GiveUp(attempt=attempt):
                run.board.say(f"{stage.name}: tried again, it failed in an earlier run")
                waited_for.add(attempt + 1)
                _submit(run, stage, out, attempt + 1)
    return artifact


def _next(run: Run, stage: Stage, out: Path) -> Submit | Attach | Adopt | GiveUp:
    entry = run.book.latest(stage.digest)
    if entry is None:
        return Submit(stage.digest, 1, "nobody made it yet")
    (action,) = reconcile(Ledger((entry,)), observe(entry, out), ledger.now())
    if isinstance(action, Adopt) and not (out / RESULT).exists():  # made once, then lost or discarded
        return Submit(stage.digest, entry.attempt + 1, "its output is gone")
    return action


def _submit(run: Run, stage: Stage, out: Path, attempt: int) -> None:
    """Claim an attempt and see it to its end, or leave it to the process that was first."""
    resources = run.cluster.resources(stage.kind)
    entry = Entry(
        digest=stage.digest, kind=stage.kind, stage=stage.name, run=run.id, attempt=attempt,
        owner=this_process(), claimed=ledger.now(),
    )  # fmt: skip
    with run.cores.taken(resources.ranks * resources.threads_per_rank):
        if run.stopping.is_set() or not run.book.claim(entry):
            return
        for stale in (RESULT, FAILURE):
            (out / stale).unlink(missing_ok=True)
        with run.board.stage(stage.name, out):
            if resources.executor == "inline":
                _run_inline(run, stage, out, entry)
            else:
                job = slurm.submit(stage, out, resources)
                entry = entry.model_copy(update={"job": job.job, "log": job.log})
                run.book.update(entry)
                _wait(run, stage, out, entry)


def _run_inline(run: Run, stage: Stage, out: Path, entry: Entry) -> None:
    entry = entry.model_copy(update={"job": entry.owner})
    run.book.update(entry)
    try:
        run_stage(stage, out)
    except Exception as error:  # noqa: BLE001 - the boundary a job of its own would have: the failure is written down
        record_failure(out, error)
        run.book.update(entry.model_copy(update={"state": JobState.FAILED}))
    else:
        run.book.update(entry.model_copy(update={"state": JobState.COMPLETED}))


def _wait(run: Run, stage: Stage, out: Path, entry: Entry) -> None:
    """Wait for a job, holding its cores; its end is written to the ledger."""
    assert entry.job is not None
    while not run.stopping.is_set():
        state = observe(entry, out)[entry.job]
        if state is not JobState.RUNNING:
            run.book.update(entry.model_copy(update={"state": state}))
            return
        run.tracker.follow(stage, out)
        time.sleep(POLL_S)


def _commit(run: Run, stage: Stage, out: Path) -> None:
    """Make a job's output visible; what turns out to be damaged loses its result, and is made again."""
    with only_writer(out):
        if run.store.find(stage.digest) is None and (out / RESULT).exists():
            with suppress(StoreError):
                run.store.commit(run.store.reference(stage.digest), _manifest(run, stage, out))
            (out / RESULT).unlink()


def _manifest(run: Run, stage: Stage, out: Path) -> Manifest:
    result = Result.model_validate_json((out / RESULT).read_text())
    entry = run.book.latest(stage.digest)
    return Manifest(
        kind=stage.kind,
        digest=stage.digest,
        inputs=tuple(str(each.digest) for each in stage.inputs.values()),
        config=stage.identity,
        code=stage.code,
        files=result.files,
        stats=result.stats,
        cost=result.cost,
        jobs=(entry.job,) if entry and entry.job else (),
        created=ledger.now().isoformat(timespec="seconds"),
    )


def _failure(run: Run, stage: Stage, out: Path) -> XclrError:
    entry = run.book.latest(stage.digest)
    log = entry.log if entry else None
    if (out / FAILURE).exists():
        failure = Failure.model_validate_json((out / FAILURE).read_text())
        remedy = failure.remedy or (f"see {log}" if log else f"see {out}")
        return JobError(f"{stage.name}: {failure.message}", remedy)
    tail = "\n".join(Path(log).read_text(errors="replace").splitlines()[-LOG_LINES:]) if log else ""
    return JobError(f"{stage.name}: the job ended without a result\n{tail}", f"see {log or out}")
