"""The scores of a HOME's finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from infra.home.runs import RunRecord, read_runs
from xclr import schema
from xclr.errors import StoreError
from xclr.record import records_named
from xclr.report.tables import comparisons
from xclr.store import Store


def find_runs(home: Path, wanted: Sequence[str]) -> list[RunRecord]:
    """The named runs, or the last runs of named recipes, each once; without names the last run.

    Raises StoreError when there are none, or none of that name.
    """
    runs = read_runs(home)
    for name in wanted:
        if any(each.sweep is not None and name in each.names for each in runs):
            raise StoreError(f"{name} is a sweep", f"xclr compare --sweep {name}")
    finished = [each for each in runs if each.scores]
    if not finished:
        last = f"; the last one, {runs[-1].run}, is {runs[-1].state}" if runs else ""
        swept = [each.called for each in runs if each.sweep is not None]
        remedy = f"xclr compare --sweep {swept[-1]}" if swept else f"xclr run {runs[-1].called if runs else 'emoji'}"
        raise StoreError(f"no finished run in {home}{last}", remedy)
    chosen = [records_named(home, finished, name, "finished run")[-1] for name in wanted] or finished[-1:]
    return list({each.run: each for each in chosen}.values())


def read_scores(home: Path, wanted: Sequence[str]) -> pa.Table:
    """The score rows of the named runs or recipes, or of the last run; raises StoreError as find_runs does."""
    store = Store(home)
    found = comparisons(find_runs(home, wanted), store)
    for each in found:
        store.check(each)
    tables = [schema.read(each.path / "scores.parquet", schema.SCORES) for each in found]
    return pa.Table.from_pylist(_once(pa.concat_tables(tables).to_pylist()), schema.SCORES)


def _once(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Each score once, though two runs share it."""
    return list({(row["checkpoint"], row["suite"], row["split"], row["metric"]): row for row in rows}.values())
