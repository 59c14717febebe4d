"""Scores of finished runs, as a table to read."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from rich.table import Table

from infra.runs import RunRecord, read_runs
from xclr import schema
from xclr.artifact import Digest
from xclr.errors import StoreError
from xclr.evaluation.score import Summary, distances, summarise
from xclr.store import Store

COLUMNS: Sequence[tuple[str, tuple[str, str, str]]] = (  # heading, (suite, split, metric)
    ("pictures top-1", ("linear", "pictures", "top1")),
    ("concepts top-1", ("linear", "concepts", "top1")),
    ("vendor top-1", ("linear", "vendor", "top1")),
    ("keywords mAP", ("keywords", "concepts", "map")),
    ("same bg top-1", ("background", "mixed_same", "top1")),
    ("other bg top-1", ("background", "mixed_rand", "top1")),
    ("bg gap", ("background", "gap", "gap")),
)


def read_scores(home: Path, wanted: Sequence[str]) -> pa.Table:
    """The score rows of the named runs or recipes, or of the last run; raises StoreError when there are none."""
    finished = [each for each in read_runs(home) if each.scores]
    if not finished:
        raise StoreError(f"no finished run in {home}", "xclr run emoji")
    store = Store(home)
    chosen = {_find(finished, name).scores for name in wanted} if wanted else {finished[-1].scores}
    tables = []
    for name in sorted(str(each) for each in chosen):
        artifact = store.find(Digest("comparison", name))
        if artifact is None:
            raise StoreError(f"the scores {name} are gone", "run the recipe again")
        tables.append(schema.read(artifact.path / "scores.parquet", schema.SCORES))
    return pa.Table.from_pylist(_once(pa.concat_tables(tables).to_pylist()), schema.SCORES)


def _once(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Each score once, though two runs share it."""
    return list({(row["checkpoint"], row["suite"], row["split"], row["metric"]): row for row in rows}.values())


def _find(runs: Sequence[RunRecord], name: str) -> RunRecord:
    matching = [each for each in runs if name in {each.run, each.recipe.name}]
    if not matching:
        known = sorted({each.run for each in runs} | {each.recipe.name for each in runs})
        near = difflib.get_close_matches(name, known, n=3) or known[-5:]
        raise StoreError(f"no finished run {name!r}", "there are: " + ", ".join(near))
    return matching[-1]


Key = tuple[str, str, str]  # suite, split, metric
Row = dict[Key, Summary]


def table_of(scores: pa.Table, against: str | None = None) -> Table:
    """Method by suite in percent: mean over seeds and its 95% interval, or the distance to a method, seed by seed.

    Raises StoreError when there is no method `against`.
    """
    summaries = summarise(scores) if against is None else distances(scores, _base(scores, against))
    by_row: dict[tuple[str, str], Row] = {}
    for each in summaries:
        by_row.setdefault((each.method, each.graph), {})[(each.suite, each.split, each.metric)] = each
    there = [column for column in COLUMNS if any(column[1] in row for row in by_row.values())]
    table = Table("method", "targets from", *[heading for heading, _ in there], caption=_caption(summaries, against))
    table.caption_justify = "left"
    sign = "" if against is None else "+"
    for (method, graph), row in sorted(by_row.items(), key=lambda item: _rank(*item[0])):
        table.add_row(method, graph, *[_cell(row, key, sign) for _, key in there])
    return table


def _base(scores: pa.Table, against: str) -> tuple[str, str]:
    rows = zip(scores.column("method").to_pylist(), scores.column("graph").to_pylist(), strict=True)
    known = sorted(set(rows), key=lambda row: _rank(*row))
    named = [row for row in known if row[0] == against]
    if not named:
        raise StoreError(f"no method {against!r} in these scores", "there are: " + ", ".join(row[0] for row in known))
    return named[0]


def _caption(summaries: Sequence[Summary], against: str | None) -> str:
    kinds = sorted({each.ci_kind for each in summaries} - {"none"})
    seeds = max((each.seeds for each in summaries), default=0)
    what = "mean" if against is None else f"distance to {against} of the same seed, mean"
    interval = f"± 95% half width ({', '.join(kinds)})" if kinds else "no interval"
    gap = "; a smaller bg gap is better" if any(each.metric == "gap" for each in summaries) else ""
    return f"percent, {what} of {seeds} seed{'s' * (seeds != 1)} {interval}{gap}"


def _rank(method: str, graph: str) -> tuple[int, str, str]:
    order = ("random", "simclr", "supcon", "clip", "xclr")
    first = next((index for index, name in enumerate(order) if method.startswith(name)), len(order))
    return first, method, graph


def _cell(row: Row, key: Key, sign: str) -> str:
    if key not in row:
        return "-"
    found = row[key]
    interval = "" if found.ci95 is None else f" ± {100 * found.ci95:.1f}"
    return f"{100 * found.mean:{sign}.1f}{interval}"
