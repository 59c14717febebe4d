"""`ensure`: the one way a stage's output comes to be. Claim, submit or attach, wait, commit, track."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from infra import processes
from infra.cancel import end_jobs
from infra.executors.executor import STAGE, Attempt, Executor, Submission, executor_named, executor_of, failure_of
from infra.executors.observe import find_again, observe
from infra.home.costs import settle
from infra.home.ends import endings
from infra.ledger import (
    ABSENT,
    OF_NODES,
    WHY,
    Action,
    Adopt,
    Attach,
    Book,
    Entry,
    GiveUp,
    JobState,
    Ledger,
    Submit,
    reconcile,
)
from infra.processes import JobId, this_process
from infra.progress import beside
from infra.resources import Resources
from infra.run import Run
from infra.tracking.metrics import Made
from infra.watchdog import Watchdog
from xclr import shards
from xclr.artifact import Artifact, Manifest
from xclr.disk import probed
from xclr.errors import JobError, StoreError, XclrError
from xclr.job import OUTCOMES, RESULT, Result, record_failure
from xclr.stage import Stage
from xclr.store import Store, only_writer, write_atomically

POLL_S = 0.3
LOG_LINES = 15
CANCELLED = JobState.CANCELLED


def ensure(run: Run, stage: Stage) -> Artifact:
    """The stage's artifact: found and verified, or made; tracked either way. Raises XclrError if it cannot be made."""
    artifact = run.store.find(stage.digest)
    if artifact is not None:
        track_found(run, stage, artifact)
        return artifact
    out = open_stage(run, stage)
    try:
        artifact = _make(run, stage, out)
    except XclrError:
        track_lost(run, stage)
        raise
    return track_made(run, stage, artifact)


def open_stage(run: Run, stage: Stage) -> Path:
    """The directory of a stage that is to be made; raises StoreError when the run may only read."""
    if run.mode == "read-only":
        raise StoreError(f"{stage.name} is not in {run.store.home}", "run without --mode read-only")
    return run.store.begin(stage.digest)


def track_found(run: Run, stage: Stage, artifact: Artifact) -> None:
    """Track and count what was there already."""
    entry, manifest = run.book.latest(stage.digest), run.store.manifest(artifact)
    usage = settle(run.book, stage, manifest, run.cluster.resources_of(stage).gpus)
    reused = Made(artifact, manifest, usage, entry.run if entry else "the store")
    run.tracker.record(stage, reused)
    run.board.found(stage.name)


def track_made(run: Run, stage: Stage, artifact: Artifact) -> Artifact:
    """Track and count what this run made or waited for, with what its jobs used."""
    manifest = run.store.manifest(artifact)
    usage = settle(run.book, stage, manifest, run.cluster.resources_of(stage).gpus)
    run.tracker.record(stage, Made(artifact, manifest, usage))
    run.board.finished(stage.name, f"{manifest.cost.wall_s:.1f} s")
    return artifact


def track_lost(run: Run, stage: Stage) -> None:
    """Track how far a stage came that was begun and is not there, and how it ended or that its job goes on."""
    for each in endings(run.store.home, [str(stage.digest)]):
        if stage.kind.network:
            run.tracker.upload(stage, run.store.reference(stage.digest).path)
        if each.run is not None:
            run.tracker.end(each.run, each.state, each.ended_ms)


def _make(run: Run, stage: Stage, out: Path) -> Artifact:
    """Go from what the ledger says to a committed artifact, whoever does the work."""
    waited_for: set[int] = set()
    while (artifact := run.store.find(stage.digest)) is None:
        match decide(run, stage, out, waited_for):
            case Submit() as order:
                announce(run, stage, order, waited_for)
                _submit(run, stage, out, order)
            case Attach():
                _wait(run, stage, out)
            case Adopt():
                commit(run.store, run.book, stage, out)
    return artifact


def decide(run: Run, stage: Stage, out: Path, waited_for: set[int]) -> Submit | Attach | Adopt:
    """What the run does next about a stage that is not there.

    `waited_for` holds the attempts whose end this run sees, and is added to. Raises JobError when nothing more is done.
    """
    if run.should_stop:
        raise _stopped(run, stage)
    entry, action = _next(run, stage, out)
    match action:
        case Submit(before=before) if entry and entry.attempt in waited_for and before[-1:] == (CANCELLED,):
            raise JobError(f"{stage.name}: its job was cancelled", "run it again to submit it anew")
        case Submit():
            return action
        case Attach() if entry is not None:
            if entry.job is not None and entry.attempt not in waited_for:
                run.board.say(
                    f"{stage.name}: waits for {executor_of(entry.job).call(entry.job)}, which run {entry.run} submitted"
                )
            waited_for.add(entry.attempt)
        case GiveUp(attempt=attempt, reason=reason):
            if attempt in waited_for or run.mode == "cached":
                raise _failure(run, stage, out, reason)
            return Submit(stage.digest, attempt + 1, "it failed in an earlier run")
    assert not isinstance(action, GiveUp)
    return action


def announce(run: Run, stage: Stage, order: Submit, waited_for: set[int]) -> None:
    """Say that a stage is submitted once more, and take note that this run sees the attempt's end."""
    if order.attempt > 1:
        run.board.say(f"{stage.name}: submitted again, {order.reason}")
    waited_for.add(order.attempt)


def _stopped(run: Run, stage: Stage) -> JobError:
    if run.cancelled:
        _end_all(run)
        return JobError(f"{stage.name}: the run {run.id} was cancelled", "run the recipe again to make what is missing")
    return JobError(f"{stage.name}: stopped before its end", "run the recipe again: what is running is waited for")


def _end_all(run: Run) -> None:
    """End what was submitted while the mark was made: once for all stages, of which there may be thousands."""
    with run.ending:
        if not run.has_ended_jobs:
            run.has_ended_jobs = True
            end_jobs(run.store.home, run.record, frozenset(run.record.digests))


def _next(run: Run, stage: Stage, out: Path) -> tuple[Entry | None, Action]:
    """The newest attempt and what follows from what is seen of it; its end is written down, once it is known."""
    entry = run.book.latest(stage.digest)
    if entry is None:
        return None, Submit(stage.digest, 1, "nobody made it yet")
    try:
        found = find_again(entry, out)
    except OSError:  # the scheduler does not answer: nobody knows whether there is a job
        return entry, Attach(stage.digest, None)
    entry = _seen(run, entry, found)
    observed = observe(entry, out)
    state = observed.get(entry.job or "")
    unseen = (entry.unseen_since or processes.now()) if state in ABSENT else None
    entry = _seen(run, entry, entry.model_copy(update={"unseen_since": unseen}))
    (action,) = reconcile(Ledger((entry,), run.recipe.retries), observed, processes.now())
    if entry.state is None and state is not None and not isinstance(action, Attach):
        _seen(run, entry, entry.model_copy(update={"state": state, "ended": processes.now()}))
        if state in OF_NODES:
            _avoid(run, entry, out, state)
    if isinstance(action, Adopt) and not (out / RESULT).exists():  # made once, then lost or discarded
        return entry, Submit(stage.digest, entry.attempt + 1, "its output is gone")
    return entry, action


def _avoid(run: Run, entry: Entry, out: Path, state: JobState) -> None:
    """Leave the node of an attempt out of the run's next ones, and say so."""
    if new := run.avoid(executor_of(str(entry.job)).failed_nodes(entry, out)):
        run.board.say(f"{entry.stage}: {WHY[state]}; this run's next tries leave {', '.join(new)} out")


def _seen(run: Run, before: Entry, after: Entry) -> Entry:
    """Write down what changed, unless somebody wrote the attempt's end meanwhile."""
    if after != before:
        latest = run.book.latest(before.digest)
        if latest is None or latest.attempt != before.attempt or latest.state is not None:
            return latest or before
        run.book.update(after)
    return after


def _submit(run: Run, stage: Stage, out: Path, order: Submit) -> None:
    """Claim an attempt and see it to its end, or leave it to the process that was first."""
    resources = run.cluster.resources_of(stage)
    executor = executor_named(resources.executor)
    with run.cores.taken(executor.cores(resources)):
        entry = claim(run, stage, out, order, executor.draw_name(stage.name))
        if entry is None:
            return
        attempt = Attempt(entry, stage, out, _pieces(run, stage, out) if executor.has_arrays else ())
        with run.board.stage(stage.name, out), beside(lambda over: watch(run, stage, out, over)):
            job = submit(run, resources, (attempt,), f"stage={stage.name} digest={stage.digest}")
        if job and entry.name:
            array = f"an array of {len(attempt.pieces)} in " if attempt.pieces else ""
            run.board.say(f"{stage.name}: {array}{executor.call(job)}")
        _wait(run, stage, out)


def _pieces(run: Run, stage: Stage, out: Path) -> tuple[int, ...]:
    """The shards that are to be made, of a stage that has some."""
    number = stage.pieces(run.store).shards
    return shards.missing(out, number) if number > 1 else ()


def claim(run: Run, stage: Stage, out: Path, order: Submit, name: str, element: int | None = None) -> Entry | None:
    """Claim an attempt and write down its stage; None when another process was first or nothing may begin.

    Outcomes of earlier attempts are gone after that.
    """
    entry = Entry(
        digest=stage.digest, kind=stage.kind.name, stage=stage.name, run=run.id, attempt=order.attempt,
        owner=this_process(), claimed=processes.now(), before=order.before, name=name, element=element,
        stuck_after_s=run.cluster.resources_of(stage).stuck_after_s,
    )  # fmt: skip
    if run.should_stop or not run.book.claim(entry):
        return None
    for stale in OUTCOMES:
        (out / stale).unlink(missing_ok=True)
    write_atomically(out / STAGE, stage.to_json())
    return entry


def submit(run: Run, resources: Resources, attempts: Sequence[Attempt], what: str) -> JobId | None:
    """Submit what was claimed and write down what is told of it; the last job's id, or None when it was refused."""
    digests, entry = {each.entry.digest for each in attempts}, attempts[0].entry
    comment, timeouts = f"xclr run={run.id} {what}", run.recipe.retries.timeouts
    submission = Submission(tuple(attempts), run.avoiding(resources), lambda: run.code, comment, timeouts)
    try:
        for entry in executor_named(resources.executor).submit(submission):
            run.book.update(entry)
    except JobError as error:
        end_jobs(run.store.home, run.record, digests)  # the part of an array that was taken
        for each in attempts:
            record_failure(each.out, error)
            run.book.close(each.entry, JobState.FAILED)
        return None
    if run.cancelled:  # while it was being submitted
        end_jobs(run.store.home, run.record, digests)
    return entry.job


def watch(run: Run, stage: Stage, out: Path, over: threading.Event) -> None:
    """Let the tracker see how far a stage in this process is, and say where it does not get on."""
    watchdog = Watchdog(run.board.say)
    while not over.wait(POLL_S):
        run.tracker.follow(stage, out)
        watchdog.look((run.book.latest(each), out) for each in (stage.digest,))


def _wait(run: Run, stage: Stage, out: Path) -> None:
    """Wait until the newest attempt has ended, and show how far it is."""
    told, watchdog = False, Watchdog(run.board.say)
    with run.board.stage(stage.name, out):
        while not run.should_stop:
            entry, action = _next(run, stage, out)
            if entry is None or not isinstance(action, Attach):
                return
            told = tell_silence(run, stage.name, executor_of(entry.job or entry.name), told=told)
            watchdog.look([(entry, out)])
            run.tracker.follow(stage, out)
            time.sleep(POLL_S)


def tell_silence(run: Run, what: str, executor: Executor, *, told: bool) -> bool:
    """Say once that a scheduler does not answer; returns whether that holds."""
    if not (told or executor.answers):
        run.board.say(f"{what}: {executor.title} does not answer; its jobs go on and are waited for")
    return not executor.answers


def commit(store: Store, book: Book, stage: Stage, out: Path) -> None:
    """Make a job's output visible; what turns out to be damaged loses its result, and is made again."""
    with only_writer(out):
        if store.find(stage.digest) is None and (out / RESULT).exists():
            entry = book.latest(stage.digest)
            if entry is not None and entry.state is None:  # its submitter did not live to see the end
                ended = datetime.fromtimestamp((out / RESULT).stat().st_mtime, UTC)
                book.close(entry, JobState.COMPLETED, ended)
            with suppress(StoreError):
                store.commit(store.reference(stage.digest), _manifest(book, stage, out))
            (out / RESULT).unlink()


def _manifest(book: Book, stage: Stage, out: Path) -> Manifest:
    try:
        result = Result.model_validate_json((out / RESULT).read_text())
    except ValueError as error:
        raise StoreError(f"{out / RESULT} cannot be read", "run the recipe again") from error
    entry = book.latest(stage.digest)
    return Manifest(
        kind=stage.kind.name,
        digest=stage.digest,
        inputs=tuple(str(each.digest) for each in stage.inputs.values()),
        config=stage.identity,
        code=stage.kind.code,
        files=result.files,
        stats=result.stats,
        cost=result.cost,
        jobs=(entry.job,) if entry and entry.job else (),
        made_by=result.made_by,
        created=processes.now().isoformat(timespec="seconds"),
    )


def _failure(run: Run, stage: Stage, out: Path, reason: str) -> XclrError:
    entry = run.book.latest(stage.digest)
    log = entry.log if entry else None
    if (failure := failure_of(out)) is not None:
        remedy = failure.remedy or (f"see {log}" if log else f"see {out}")
        return JobError(f"{stage.name}: {failure.message}", remedy)
    if (fault := probed(out)) is not None:  # failure.json did not fit either
        return JobError(f"{stage.name}: {fault.message}", fault.remedy)
    there = log is not None and Path(log).exists()
    tail = "\n".join(Path(str(log)).read_text(errors="replace").splitlines()[-LOG_LINES:]) if there else ""
    remedy = f"see {log or out}" + ("; raise memory_gb in the cluster file" if "memory" in reason else "")
    return JobError(f"{stage.name}: {reason}\n{tail}", remedy)
