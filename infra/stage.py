"""`ensure`: the one way a stage's output comes to be. Claim, submit or attach, wait, commit, track."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from infra import ledger, slurm
from infra.cancel import end_jobs
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
    reconcile,
    this_process,
)
from infra.plan import observe
from infra.progress import Board
from infra.runs import RunRecord, cancel_mark, write_record
from infra.tracking import Tracker
from xclr.artifact import Artifact, Manifest
from xclr.errors import JobError, StoreError, XclrError
from xclr.job import FAILURE, RESULT, Failure, Result, record_failure, run_stage
from xclr.stages import Stage
from xclr.store import Store, only_writer

Mode = Literal["cached", "retry", "force", "read-only"]
POLL_S = 0.3
LOG_LINES = 15
MOST_ATTEMPTS = 3  # of one run at a job that ends without a word


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
        self, record: RunRecord, store: Store, cluster: Cluster, mode: Mode, tracker: Tracker, board: Board
    ) -> None:
        self.record, self.recipe, self.id = record, record.recipe, record.run
        self.store, self.cluster, self.mode = store, cluster, mode
        self.tracker, self.board = tracker, board
        self.book = Book(store.home)
        self.cores = Cores(cores())
        self.stopping = threading.Event()
        self.save()

    @property
    def cancelled(self) -> bool:
        """True once someone asked that the run and its jobs end."""
        return cancel_mark(self.store.home, self.id).exists()

    @property
    def should_stop(self) -> bool:
        """True when nothing new may begin."""
        return self.stopping.is_set() or self.cancelled

    def save(self, **changes: object) -> None:
        """Write the run's record."""
        self.record = self.record.model_copy(update=changes)
        write_record(self.store.home, self.record)

    def close(self, state: Literal["completed", "failed"]) -> None:
        """Write how the run ended, and when; a failed run that was told to end was cancelled."""
        cancelled = state == "failed" and self.cancelled
        self.save(state="cancelled" if cancelled else state, ended=ledger.now())
        cancel_mark(self.store.home, self.id).unlink(missing_ok=True)


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
        if run.should_stop:
            raise _stopped(run, stage)
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


def _stopped(run: Run, stage: Stage) -> JobError:
    if run.cancelled:
        end_jobs(run.store.home, run.record, {str(stage.digest)})  # what was submitted while the mark was made
        return JobError(f"{stage.name}: the run {run.id} was cancelled", "run the recipe again to make what is missing")
    return JobError(f"{stage.name}: stopped before its end", "run the recipe again: what is running is waited for")


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
    with run.cores.taken(resources.ranks * resources.threads_per_rank):
        entry = Entry(
            digest=stage.digest, kind=stage.kind, stage=stage.name, run=run.id, attempt=attempt,
            owner=this_process(), claimed=ledger.now(),
        )  # fmt: skip
        if run.should_stop or not run.book.claim(entry):
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
        run.book.close(entry, JobState.FAILED)
    else:
        run.book.close(entry, JobState.COMPLETED)


def _wait(run: Run, stage: Stage, out: Path, entry: Entry) -> None:
    """Wait for a job, holding its cores; its end is written to the ledger."""
    assert entry.job is not None
    while not run.should_stop:
        state = observe(entry, out)[entry.job]
        if state is not JobState.RUNNING:
            if not run.should_stop:  # else it was ended, and that is written already
                run.book.close(entry, state)
            return
        run.tracker.follow(stage, out)
        time.sleep(POLL_S)


def _commit(run: Run, stage: Stage, out: Path) -> None:
    """Make a job's output visible; what turns out to be damaged loses its result, and is made again."""
    with only_writer(out):
        if run.store.find(stage.digest) is None and (out / RESULT).exists():
            entry = run.book.latest(stage.digest)
            if entry is not None and entry.state is None:  # its submitter did not live to see the end
                ended = datetime.fromtimestamp((out / RESULT).stat().st_mtime, UTC)
                run.book.close(entry, JobState.COMPLETED, ended)
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
