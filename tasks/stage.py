"""What every task does: ensure a stage, and show in the Prefect UI how far it is."""

from __future__ import annotations

import contextvars
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from uuid import UUID

import httpx
from prefect import get_client
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from infra.executors.executor import executor_of
from infra.progress import Advance, read_progress
from infra.stage import Run, ensure
from xclr.artifact import Artifact
from xclr.stages import Stage

EVERY_S = 5.0  # between two looks at a stage; a shorter one leaves no progress artifact


def make(run: Run, stage: Stage) -> Artifact:
    """The stage's artifact, found or made; a long one shows its progress and its Slurm job at its task run."""
    with _beside(lambda over: _follow(run, stage, over)):
        return ensure(run, stage)


def counted(run: Run, what: str, stages: Sequence[Stage]) -> AbstractContextManager[None]:
    """Shows at the task run how many of some stages have come to an end, where that takes long."""
    return _beside(lambda over: _count(run, what, stages, over))


def _count(run: Run, what: str, stages: Sequence[Stage], over: threading.Event) -> None:
    artifact = None
    try:
        while not over.wait(EVERY_S):
            artifact = _show_progress(artifact, what, _ended(run, stages))
        if artifact is not None:
            _show_progress(artifact, what, _ended(run, stages))
    except (httpx.HTTPError, PrefectException) as error:  # the stages go on without their bar
        get_run_logger().warning("progress of %s is no longer shown: %s", what, error)


def _ended(run: Run, stages: Sequence[Stage]) -> Advance:
    return Advance(sum(each.digest in run.outcomes for each in stages), len(stages))


def artifact_key(name: str) -> str:
    """A name as Prefect's artifact keys allow it: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@contextmanager
def _beside(show: Callable[[threading.Event], None]) -> Iterator[None]:
    """Let `show` run until what it is given is set, when the block ends."""
    over = threading.Event()
    within = contextvars.copy_context().run  # the thread acts for the task run of its caller
    thread = threading.Thread(target=within, args=(show, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _follow(run: Run, stage: Stage, over: threading.Event) -> None:
    out, artifact, job = run.store.reference(stage.digest).path, None, None
    try:
        while not over.wait(EVERY_S):
            job = _name_job(run, stage, job)
            artifact = _show(artifact, stage.name, out)
        _name_job(run, stage, job)
        if artifact is not None:
            _show(artifact, stage.name, out)
    except (httpx.HTTPError, PrefectException) as error:  # the stage goes on without its bar
        get_run_logger().warning("progress of %s is no longer shown: %s", stage.name, error)


def _name_job(run: Run, stage: Stage, named: str | None) -> str | None:
    """Put the number of a stage's Slurm job into the name of its task run; the job that is named now."""
    entry, context = run.book.latest(stage.digest), TaskRunContext.get()
    if entry is None or entry.job in {None, named} or context is None or executor_of(entry.job).is_here:
        return named
    context.task_run.name = (
        f"{stage.name} ({executor_of(entry.job).call(entry.job)})"  # else its end brings the old name back
    )
    with get_client(sync_client=True) as client:
        client.set_task_run_name(context.task_run.id, context.task_run.name)
    return entry.job


def _show(artifact: UUID | None, name: str, out: Path) -> UUID | None:
    seen = read_progress(out)
    return artifact if seen is None else _show_progress(artifact, name, seen)


def _show_progress(artifact: UUID | None, name: str, seen: Advance) -> UUID | None:
    percent, words = 100 * seen.done / max(1, seen.total), f"{name}: {seen}"
    if artifact is None:
        made = create_progress_artifact(percent, key=artifact_key(f"progress {name}"), description=words)
        return made if isinstance(made, UUID) else None
    update_progress_artifact(artifact, percent, description=words)
    return artifact
