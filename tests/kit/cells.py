"""Sweeps without a HOME: cells, how they stand, and the scores that they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from infra.home.runs import new_record
from infra.home.swept import SCORES
from tests.kit.recipes import TINY
from xclr.artifact import Usage
from xclr.recipe import Recipe
from xclr.report.sweep import Swept
from xclr.sweep.cells import CellLine, Standing
from xclr.sweep.layout import Cell, Ref
from xclr.sweep.spec import Sweep

TAU = "objective.target_temperature"
IMAGENET, KNN, GAP = ("imagenet", "val", "top1"), ("knn", "val", "top1"), ("imagenet9", "gap", "gap")
SUITES = {"suites": ["imagenet", "knn", "imagenet9"], "bootstrap": 100}
RECIPE = Recipe.model_validate(TINY | {"objectives": ["simclr", "xclr"], "seeds": [0, 1, 2], "evaluate": SUITES})
SWEEP = Sweep(name="warm", recipe=RECIPE, grid={TAU: (0.1, 0.2, 0.5)})


def cell(method="xclr", graph="captions", seed=0, **values) -> Cell:
    """A cell whose digests tell what it is."""
    own = f"{method} {graph} {seed} {values}"
    refs = [Ref(level=level, kind=kind, digest=f"{level} {own}", name=level) for level, kind in LEVELS.items()]
    return Cell(
        label=method if graph == "captions" or "source" in values or method != "xclr" else f"{method} ({graph})",
        method=method,
        graph=graph,
        seed=seed,
        values={NAMES[k]: v for k, v in values.items()},
        stages=tuple(refs),
    )


LEVELS = {"pretrain": "pretrain", "suite imagenet": "suite"}
NAMES = {"tau": TAU, "source": "graph.source", "epochs": "train.epochs"}


def line(cell: Cell, state="done", level="", reason="", job="") -> CellLine:
    return CellLine(cell, state, level, reason, job, None, tuple(Standing("done") for _ in cell.stages))


def swept_of(
    lines: Sequence[CellLine],
    scores: Callable[[Cell], Mapping[tuple[str, str, str], float]],
    sweep: Sweep = SWEEP,
    usages: Mapping[str, Usage] | None = None,
) -> Swept:
    """A sweep without a HOME, whose cells have these scores."""
    ended = {"sweep": sweep, "cells": tuple(each.cell for each in lines), "run": f"{sweep.name}-1"}
    record = new_record(sweep.recipe, []).model_copy(update=ended)
    rows = [_row(place, each.cell, *score) for place, each in enumerate(lines) for score in scores(each.cell).items()]
    return Swept(record, tuple(lines), pa.Table.from_pylist(rows, SCORES), usages or {})


def _row(place, cell, key, value):
    origin = {"run": "r", "dataset": "cc3m", "step": 1, "n": 500, "ci95": 0.02, "ci_kind": "bootstrap"}
    own = {"method": cell.method, "graph": cell.graph, "seed": cell.seed, "checkpoint": cell.training.digest}
    return origin | own | dict(zip(("suite", "split", "metric"), key, strict=True)) | {"value": value, "cell": place}


def by_tau(values: Mapping[object, Sequence[float]]) -> Swept:
    """Cells of simclr and of xclr at each temperature, a seed for each value."""
    cells = [
        cell(seed=seed)
        if tau == "xclr"
        else cell("simclr", "augmentation", seed)
        if tau == "simclr"
        else cell(seed=seed, tau=tau)
        for tau, found in values.items()
        for seed in range(len(found))
    ]
    return swept_of(
        [line(each) for each in cells], lambda each: {IMAGENET: values[each.values.get(TAU, each.method)][each.seed]}
    )


def in_every_state(reason: str) -> Swept:
    """A sweep whose cells are done but for one in each other state; one failed for this reason."""
    lines = [
        *(line(cell("simclr", "augmentation", seed)) for seed in range(3)),
        *(line(cell(seed=seed, tau=0.1)) for seed in range(3)),
        line(cell(tau=0.2), "failed", "pretrain", reason, "4711_3"),
        line(cell(seed=1, tau=0.2), "running", "suite imagenet", "", "4712"),
        line(cell(seed=2, tau=0.2), "waiting", "pretrain", "", "4713"),
        line(cell(tau=0.5), "to come", "pretrain"),
    ]
    return swept_of(lines, lambda each: _scores_of(each) if each.values.get(TAU) in {None, 0.1} else {})


def _scores_of(cell: Cell) -> dict[tuple[str, str, str], float]:
    few = {("few-shot", f"{percent}-percent", "top1"): percent / 200 for percent in (1, 10, 100)}
    return {IMAGENET: 0.6 if cell.values else 0.3, KNN: 0.2, GAP: 0.1} | few
