"""The task of a stage: find or make it, and show in the Prefect UI how far it is and what came of it."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import UUID

import httpx
import submitit  # noqa: F401 - sets logging up as it is imported: in a run's thread, it and Prefect wait for each other
from prefect import get_client, task
from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from infra.executors.executor import Executor, executor_of
from infra.ledger import Entry
from infra.progress import Advance, beside, read_progress
from infra.run import Run
from infra.stage import ensure
from xclr.artifact import Artifact
from xclr.stage import Stage, Step

EVERY_S = 5.0  # between two looks at a stage; a shorter one leaves no progress artifact


@task(task_run_name="{stage.name}", cache_policy=NO_CACHE)
def make(run: Run, stage: Stage, steps: frozenset[Step]) -> Artifact:
    """The stage's artifact, found or made; a long one shows its progress and its job at its task run.

    Raises XclrError when it cannot be made, or when one of the run's steps cannot be taken with what came of it.
    """
    with beside(lambda over: _follow(run, stage, over)):
        artifact = ensure(run, stage)
    manifest = run.store.manifest(artifact)
    for line in stage.kind.tell(manifest):
        run.board.say(line)
    if rows := stage.kind.table(manifest):
        create_table_artifact(
            list(map(dict, rows)), key=artifact_key(stage.name), description=f"{stage.name} by what became of them"
        )
    stage.check(run.recipe, manifest, steps)
    if stage.kind.network and (link := run.tracker.run_url(str(artifact.digest))):
        title = stage.name.removeprefix(f"{stage.kind.name} ")
        create_link_artifact(link, key=artifact_key(f"mlflow {title}"), link_text=f"{title} in MLflow")
    return artifact


def counted(run: Run, what: str, stages: Sequence[Stage]) -> AbstractContextManager[None]:
    """Shows at the task run how many of some stages have come to an end, where that takes long."""
    return beside(lambda over: _count(run, what, stages, over))


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
    """Put a stage's Slurm job, and when it is to start, into the name of its task run; how it is named now."""
    entry, context = run.book.latest(stage.digest), TaskRunContext.get()
    if entry is None or entry.job is None or context is None or executor_of(entry.job).is_here:
        return named
    name = f"{stage.name} ({job_words(executor_of(entry.job), entry)})"
    if name != named:
        context.task_run.name = name  # else its end brings the old name back
        with get_client(sync_client=True) as client:
            client.set_task_run_name(context.task_run.id, name)
    return name


def job_words(executor: Executor, entry: Entry) -> str:
    """A job by its number, one that waits with what is known of its start: Slurm job 4711, to start 26 Nov 14:05."""
    call, seen = executor.call(str(entry.job)), executor.look(entry)
    if seen is None or entry.state is not None:
        return call
    if seen.remedy:
        return f"{call}, will not start by itself"
    return call if seen.starts is None else f"{call}, to start {seen.starts.astimezone():%d %b %H:%M}"


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
