"""What a run cost after the fact: GPU-hours and core-hours by stage kind and method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from infra.executors.executor import executor_of
from infra.home.runs import RunRecord
from infra.ledger import Book
from xclr.artifact import Manifest, Usage
from xclr.pipeline import pipeline
from xclr.stage import Stage
from xclr.store import Store


class CostLine(BaseModel):
    """What the jobs of a stage kind used for a method; its data stages have none."""

    model_config = ConfigDict(frozen=True)
    stage: str
    method: str
    jobs: int
    gpu_hours: float
    cpu_hours: float
    cpu_efficiency: float | None


def settle(book: Book, stage: Stage, manifest: Manifest, gpus: int) -> Usage | None:
    """What all attempts at a stage used, asked once and kept in the ledger; None for a stage that had no job.

    Without accounting it is the time of the attempt that succeeded.
    """
    known = book.usage(stage.digest)
    ids, ask = _jobs(book, stage)
    if not ids or (known is not None and known.jobs >= len(ids)):
        return known
    wall_h, cost = manifest.cost.wall_s / 3600, manifest.cost
    guess = Usage(gpu_hours=wall_h * gpus, cpu_hours=cost.cpu_s / 3600, cpu_efficiency=None, jobs=len(ids))
    usage = ask(ids) or guess
    book.write_usage(stage.digest, usage)
    return usage


def settle_lost(book: Book, stage: Stage) -> None:
    """Keep what the attempts at a stage used that could not be made, where somebody counts."""
    ids, ask = _jobs(book, stage)
    usage = ask(ids) if ids else None
    if usage is not None:
        book.write_usage(stage.digest, usage)


def costs_of(home: Path, record: RunRecord) -> list[CostLine]:
    """The costs of everything that a run planned, whoever made it, in the order of its stages."""
    book, found = Book(home), dict[tuple[str, str], list[Usage]]()
    store = Store(home)
    planned = {stage.digest: stage for recipe in record.recipes for stage in pipeline(recipe, store)}
    methods = {
        digest: stage.kind.network(stage.config).method for digest, stage in planned.items() if stage.kind.network
    }
    for stage in planned.values():
        usage = book.usage(stage.digest)
        if usage is not None:
            method = methods[stage.network] if stage.network else ""
            found.setdefault((stage.kind.name, method), []).append(usage)
    return [_line(kind, method, usages) for (kind, method), usages in found.items()]


def _line(kind: str, method: str, usages: list[Usage]) -> CostLine:
    cores = sum(each.cpu_hours for each in usages)
    counted = [each for each in usages if each.cpu_efficiency is not None and each.cpu_hours]
    busy = sum((each.cpu_efficiency or 0) * each.cpu_hours for each in counted)
    whole = sum(each.cpu_hours for each in counted)
    return CostLine(
        stage=kind,
        method=method,
        jobs=sum(each.jobs for each in usages),
        gpu_hours=sum(each.gpu_hours for each in usages),
        cpu_hours=cores,
        cpu_efficiency=busy / whole if whole else None,
    )


def _jobs(book: Book, stage: Stage) -> tuple[list[str], Callable[[Sequence[str]], Usage | None]]:
    """The jobs away from this machine that attempts at a stage had where the last one ran, and whom to ask of them."""
    jobs = [(entry.job, executor_of(entry.job)) for entry in book.attempts(stage.digest) if entry.job]
    away = [(job, executor) for job, executor in jobs if not executor.is_here]
    last = away[-1][1] if away else executor_of("")
    return [each for job, executor in away if executor is last for each in last.ids(job)], last.used
