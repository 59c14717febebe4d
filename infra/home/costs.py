"""What a run cost after the fact: GPU-hours and core-hours by stage kind and method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from infra.executors.executor import executor_of
from infra.home.runs import RunRecord
from infra.ledger import Book
from xclr.artifact import Manifest, Usage
from xclr.pipeline import pipeline
from xclr.stage import Stage
from xclr.store import Store

SPARE = 1.25  # memory to ask for, of what was used
LEAST_FIT = 0.6  # of what was asked for, below which others could have the rest


class CostLine(BaseModel):
    """What the jobs of a stage kind used for a method; its data stages have none. Memory is GiB on a node."""

    model_config = ConfigDict(frozen=True)
    stage: str
    method: str
    jobs: int
    gpu_hours: float
    cpu_hours: float
    cpu_efficiency: float | None
    memory_gb: float | None = None
    memory_asked_gb: float | None = None

    @property
    def memory_next_gb(self) -> int | None:
        """What to ask for next, in whole GiB: a quarter above the most that was used, unless that is about what was."""
        if self.memory_gb is None or self.memory_asked_gb is None:
            return None
        wanted = math.ceil(SPARE * self.memory_gb)
        return None if LEAST_FIT <= wanted / self.memory_asked_gb <= 1 else wanted


def settle(book: Book, stage: Stage, manifest: Manifest, gpus: int) -> Usage | None:
    """What all attempts at a stage used, kept in the ledger once it is counted; None for a stage that had no job.

    Without accounting it is the time of the attempt that succeeded, and whoever wants to know asks again.
    """
    known = book.usage(stage.digest)
    ids, ask = _jobs(book, stage)
    if not ids or (known is not None and known.jobs >= len(ids) and known.is_counted):
        return known
    wall_h, cost = manifest.cost.wall_s / 3600, manifest.cost
    guess = Usage(gpu_hours=wall_h * gpus, cpu_hours=cost.cpu_s / 3600, cpu_efficiency=None, jobs=len(ids))
    usage = ask(ids) or (known if known is not None and known.is_counted else guess)
    if usage != known:
        with suppress(OSError):  # a guest may ask what a run cost
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
        if usage is not None and not usage.is_counted and (made := store.find(stage.digest)) is not None:
            usage = settle(book, stage, store.manifest(made), gpus=_gpus_of(usage, store.manifest(made)))
        if usage is not None:
            method = methods[stage.network] if stage.network else ""
            found.setdefault((stage.kind.name, method), []).append(usage)
    return [_line(kind, method, usages) for (kind, method), usages in found.items()]


def suggestions(lines: Iterable[CostLine]) -> dict[str, int]:
    """By stage kind, the memory in GiB to ask for next time where it is another than was asked for."""
    kinds: dict[str, list[CostLine]] = {}
    for each in lines:
        kinds.setdefault(each.stage, []).append(each)
    most = {kind: max(own, key=lambda each: each.memory_gb or 0) for kind, own in kinds.items()}
    return {kind: each.memory_next_gb for kind, each in most.items() if each.memory_next_gb is not None}


def _gpus_of(guess: Usage, manifest: Manifest) -> int:
    """GPUs of the job whose time was taken for what it used."""
    return round(guess.gpu_hours * 3600 / manifest.cost.wall_s) if manifest.cost.wall_s else 0


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
        memory_gb=max((each.memory_gb for each in usages if each.memory_gb), default=None),
        memory_asked_gb=max((each.memory_asked_gb for each in usages if each.memory_asked_gb), default=None),
    )


def _jobs(book: Book, stage: Stage) -> tuple[list[str], Callable[[Sequence[str]], Usage | None]]:
    """The jobs away from this machine that attempts at a stage had where the last one ran, and whom to ask of them."""
    jobs = [(entry.job, executor_of(entry.job)) for entry in book.attempts(stage.digest) if entry.job]
    away = [(job, executor) for job, executor in jobs if not executor.is_here]
    last = away[-1][1] if away else executor_of("")
    return [each for job, executor in away if executor is last for each in last.ids(job)], last.used
