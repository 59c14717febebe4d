"""Scores of finished runs as tables to read: one source of cells for the terminal, Markdown and the page."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from rich.table import Table

from infra.runs import RunRecord, read_runs
from xclr import schema
from xclr.artifact import Digest
from xclr.errors import StoreError
from xclr.evaluation.score import Summary, distances, summarise
from xclr.store import Store

Key = tuple[str, str, str]  # suite, split, metric
COLUMNS: Sequence[tuple[str, Key]] = (  # heading, what it shows
    ("pictures top-1", ("linear", "pictures", "top1")),
    ("concepts top-1", ("linear", "concepts", "top1")),
    ("vendor top-1", ("linear", "vendor", "top1")),
    ("keywords mAP", ("keywords", "concepts", "map")),
    ("same bg top-1", ("background", "mixed_same", "top1")),
    ("other bg top-1", ("background", "mixed_rand", "top1")),
    ("bg gap", ("background", "gap", "gap")),
)
NO_SCORES = "No suite judged this run: its data have no labels for one, or the recipe names none."


@dataclass(frozen=True)
class Cell:
    """One number as it is printed; `best` marks the best mean of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A method's cells, one a heading."""

    method: str
    graph: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """A table before it is rendered: headings of the cells, lines in reading order, what the numbers are."""

    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    caption: str


def find_runs(home: Path, wanted: Sequence[str]) -> list[RunRecord]:
    """The named runs, or the last runs of named recipes, each once; without names the last run.

    Raises StoreError when there are none, or none of that name.
    """
    runs = read_runs(home)
    finished = [each for each in runs if each.scores]
    if not finished:
        last = f"; the last one, {runs[-1].run}, is {runs[-1].state}" if runs else ""
        raise StoreError(f"no finished run in {home}{last}", f"xclr run {runs[-1].recipe.name if runs else 'emoji'}")
    chosen = [_find(finished, name) for name in wanted] or finished[-1:]
    return list({each.run: each for each in chosen}.values())


def read_scores(home: Path, wanted: Sequence[str]) -> pa.Table:
    """The score rows of the named runs or recipes, or of the last run; raises StoreError as find_runs does."""
    store = Store(home)
    tables = []
    for name in sorted({str(each.scores) for each in find_runs(home, wanted)}):
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


def table_of(scores: pa.Table, against: str | None = None) -> Table:
    """The grid for a terminal; raises StoreError when there is no method `against`."""
    grid = grid_of(scores, against)
    table = Table("method", "targets from", *grid.headings, caption=grid.caption)
    table.caption_justify = "left"
    for line in grid.lines:
        table.add_row(line.method, line.graph, *[cell.text for cell in line.cells])
    return table


def markdown_of(scores: pa.Table, against: str | None = None) -> str:
    """The grid as GitHub Markdown, best means in bold; raises StoreError when there is no method `against`."""
    if not scores.num_rows:
        return NO_SCORES
    grid = grid_of(scores, against)
    rows = [["method", "targets from", *grid.headings], ["---"] * (2 + len(grid.headings))]
    for line in grid.lines:
        numbers = [f"**{cell.text}**" if cell.best else cell.text for cell in line.cells]
        rows.append([_plain(line.method), _plain(line.graph), *numbers])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{grid.caption}\n"


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing to act on."""
    return "".join(f"\\{each}" if each in "\\|*_`<[" else each for each in text)


def grid_of(scores: pa.Table, against: str | None = None) -> Grid:
    """Method by suite in percent: mean over seeds and its 95% interval, or the distance to a method, seed by seed.

    Raises StoreError when there is no method `against`.
    """
    summaries = summarise(scores) if against is None else distances(scores, _base(scores, against))
    by_row: dict[tuple[str, str], dict[Key, Summary]] = {}
    for each in summaries:
        by_row.setdefault((each.method, each.graph), {})[(each.suite, each.split, each.metric)] = each
    there = [column for column in COLUMNS if any(column[1] in row for row in by_row.values())]
    best = {key: _best([row[key].mean for row in by_row.values() if key in row], key) for _, key in there}
    lines = []
    for (method, graph), row in sorted(by_row.items(), key=lambda item: rank(*item[0])):
        if against is None:
            cells = [_cell(row.get(key), "", best[key]) for _, key in there]
        else:
            cells = [_cell(row.get(key), "+", None) for _, key in there]
        lines.append(Line(method, graph, tuple(cells)))
    return Grid(tuple(heading for heading, _ in there), tuple(lines), _caption(summaries, against))


def methods_of(scores: pa.Table) -> list[tuple[str, str]]:
    """The pairs (method, graph) of these scores, in reading order."""
    rows = zip(scores.column("method").to_pylist(), scores.column("graph").to_pylist(), strict=True)
    return sorted(set(rows), key=lambda row: rank(*row))


def _base(scores: pa.Table, against: str) -> tuple[str, str]:
    known = methods_of(scores)
    named = [row for row in known if row[0] == against]
    if not named:
        raise StoreError(f"no method {against!r} in these scores", "there are: " + ", ".join(row[0] for row in known))
    return named[0]


def _best(means: Sequence[float], key: Key) -> float | None:
    """The best mean of a column, where there is something to be better than."""
    if len(means) < 2:
        return None
    return min(means) if key[2] == "gap" else max(means)


def _caption(summaries: Sequence[Summary], against: str | None) -> str:
    kinds = sorted({each.ci_kind for each in summaries} - {"none"})
    seeds = max((each.seeds for each in summaries), default=0)
    what = "mean" if against is None else f"distance to {against} of the same seed, mean"
    interval = f"± 95% half width ({', '.join(kinds)})" if kinds else "no interval"
    gap = "; a smaller bg gap is better" if any(each.metric == "gap" for each in summaries) else ""
    return f"percent, {what} of {seeds} seed{'s' * (seeds != 1)} {interval}{gap}"


def rank(method: str, graph: str) -> tuple[int, str, str]:
    """Sorts methods into reading order: the untrained network first, X-CLR last."""
    order = ("random", "simclr", "supcon", "clip", "xclr")
    first = next((index for index, name in enumerate(order) if method.startswith(name)), len(order))
    return first, method, graph


def _cell(found: Summary | None, sign: str, best: float | None) -> Cell:
    if found is None:
        return Cell("-")
    interval = "" if found.ci95 is None else f" ± {100 * found.ci95:.1f}"
    percent = round(100 * found.mean, 1) + 0.0  # no minus before a zero
    return Cell(f"{percent:{sign}.1f}{interval}", found.mean == best)
