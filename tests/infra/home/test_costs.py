"""What runs cost: counted, or taken from the clock until somebody counts; and what to ask for next."""

from __future__ import annotations

import pytest

from infra.executors.executor import executor_named
from infra.home.costs import CostLine, costs_of, settle, suggestions
from infra.home.runs import read_runs
from infra.ledger import USAGE, Book, Entry
from infra.processes import now
from tests.kit.runs import begin_with_data, open_run, planned
from xclr.artifact import Usage

COUNTED = Usage(gpu_hours=0.5, cpu_hours=4, cpu_efficiency=0.5, jobs=1, memory_gb=3, memory_asked_gb=32)


def test_what_the_clock_said_is_asked_again_until_it_is_counted(home, monkeypatch):
    """As after a sacct that failed when the job ended."""
    begin_with_data(home)
    run = open_run(home)
    stage = planned(run.recipe, run.store)["images"]
    entry = run.book.latest(stage.digest)
    run.book.claim(Entry.model_validate(entry.model_dump() | {"attempt": 2, "claimed": now(), "job": "slurm/5"}))
    manifest = run.store.manifest(run.store.find(stage.digest))
    answers = iter([None, None, COUNTED, COUNTED])
    monkeypatch.setattr(executor_named("slurm"), "used", lambda ids: next(answers))
    guess = settle(run.book, stage, manifest, gpus=2)
    assert not guess.is_counted and guess.gpu_hours == pytest.approx(manifest.cost.wall_s * 2 / 3600)
    (line,) = costs_of(home, read_runs(home)[-1])
    assert (line.stage, line.gpu_hours, line.memory_gb) == ("images", guess.gpu_hours, None)
    (line,) = costs_of(home, read_runs(home)[-1])
    assert (line.gpu_hours, line.memory_gb, line.memory_asked_gb) == (0.5, 3, 32)
    assert Book(home).usage(stage.digest) == COUNTED
    assert settle(run.book, stage, manifest, gpus=2) == COUNTED, "it was asked for again"
    (run.book.root / stage.digest / USAGE).write_text('{"gpu_hours": 0.')
    assert costs_of(home, read_runs(home)[-1]) == []
    assert settle(run.book, stage, manifest, gpus=2) == COUNTED, "what was cut stood"


def line(used: float | None, asked: float | None, stage: str = "pretrain") -> CostLine:
    return CostLine(
        stage=stage, method="clip", jobs=1, gpu_hours=1, cpu_hours=1, cpu_efficiency=1, memory_gb=used,
        memory_asked_gb=asked,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("used", "asked", "wanted"),
    [(3.0, 32.0, 4), (30.0, 32.0, 38), (20.0, 32.0, None), (None, 32.0, None), (3.0, None, None), (0.1, 1.0, None)],
)
def test_the_next_request_fits_what_was_used(used, asked, wanted):
    assert suggestions([line(used, asked)]) == ({} if wanted is None else {"pretrain": wanted})


def test_the_most_that_any_method_used_counts():
    lines = [line(3, 32), line(24, 32), line(1, 8, "suite")]
    assert suggestions(lines) == {"suite": 2}
