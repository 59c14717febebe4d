"""A sweep's run with what its cells came to, read from HOME, and what the tracker is told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra.home.runs import RunRecord
from infra.home.sweeps import cell_lines
from infra.ledger import Book
from infra.tracking.tracker import RunState, SweepSummary
from xclr import schema
from xclr.report.sweep import Swept, rows_of, state_counts, summary_of, tags_of
from xclr.store import Store
from xclr.sweep.cells import CellLine, counts
from xclr.sweep.layout import Ref
from xclr.sweep.spec import short, spelled, text_of

SCORES = pa.schema([*schema.SCORES, pa.field("cell", pa.int64(), nullable=False)])


def read_swept(home: Path, record: RunRecord) -> Swept:
    """A sweep's run with what its cells came to; suites that are not in the store are left out."""
    store, book, lines = Store(home), Book(home), cell_lines(home, record)
    tables = [_scores(store, ref, place) for place, line in enumerate(lines) for ref in line.cell.suites]
    digests = dict.fromkeys([*record.digests, *(ref.digest for line in lines for ref in line.cell.stages)])
    usages = {digest: usage for digest in digests if (usage := book.usage(digest)) is not None}
    return Swept(record, lines, pa.concat_tables([SCORES.empty_table(), *tables]), usages)


def joined(record: RunRecord) -> dict[str, str]:
    """The values of a sweep's networks, by digest."""
    values: dict[str, dict[str, None]] = {}  # by network, each once: cells that differ by a suite share it
    for cell in record.cells:
        values.setdefault(cell.training.digest, {})[spelled(cell.values) or "every value"] = None
    return {digest: "; ".join(each) for digest, each in values.items()}


def summary(swept: Swept) -> SweepSummary:
    """What the tracker is told of a sweep: its cells, the best of them, its page and plots."""
    from xclr.report.sweep_page import pictures, render_sweep  # brings plots

    files = {"sweep.html": render_sweep(swept).encode(), **pictures(swept)}
    rows = [flat(row) for row in rows_of(swept)]
    done = state_counts(swept).get("done", 0)
    state = state_of(swept.lines, cancelled=swept.record.state == "cancelled")
    return SweepSummary(done, state, tags_of(swept), summary_of(swept), rows, files)


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's row with a column for each value and score."""
    values = {short(field): text_of(value) for field, value in row["values"].items()}
    first = {name: row[name] for name in ("method", "graph", "seed")}
    rest = {name: each for name, each in row.items() if name not in {"values", "scores"}}
    return {**first, **values, **row["scores"], **rest}


def state_of(lines: Sequence[CellLine], *, cancelled: bool) -> RunState:
    """How a sweep stands whose own process has ended: its jobs may go on."""
    states = counts(lines)
    if {"running", "waiting"} & states.keys():
        return "RUNNING"
    if states.keys() <= {"done", "stopped"}:
        return "FINISHED"
    return "KILLED" if cancelled else "FAILED"


def _scores(store: Store, suite: Ref, place: int) -> pa.Table:
    artifact = store.find(suite.output)
    if artifact is None:
        return SCORES.empty_table()
    store.check(artifact)
    table = schema.read(artifact.path / "scores.parquet", schema.SCORES).select(schema.SCORES.names)
    return table.append_column(SCORES.field("cell"), pa.array([place] * table.num_rows, pa.int64())).cast(SCORES)
