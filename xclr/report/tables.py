"""Scores of finished runs as tables to read: one source of cells for the terminal, Markdown and the page."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console, ConsoleOptions
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from xclr import schema
from xclr.artifact import Artifact, Digest
from xclr.errors import StoreError
from xclr.evaluation.score import Summary, summarise
from xclr.evaluation.significance import Answers, Distance, Key, Method, distances_of
from xclr.printable import in_one_line
from xclr.recipe import SOURCES, SUITES
from xclr.record import Record
from xclr.store import Store


class Column(NamedTuple):
    """A column of a table: its heading, the score that it shows, and what that is, in words."""

    heading: str
    key: Key
    about: str

    @property
    def unit(self) -> str:
        """What its numbers are, once in percent."""
        return "points" if self.key[2] == "gap" else "%"


PAPERS, MORE, OWN, DRAWN = "the paper's suites", "more on these data sets", "own pictures", "factors of scenes"
COLUMNS = [
    (
        PAPERS if each.paper else MORE if suite.datasets else DRAWN if suite.drawn else OWN,
        Column(each.heading, (name, each.split, each.metric), each.about),
    )
    for name, suite in SUITES.items()
    for each in suite.columns
]
GROUPS: Mapping[str, Sequence[Column]] = {  # a table each, so that they fit a page
    title: [column for group, column in COLUMNS if group == title] for title in (PAPERS, MORE, OWN, DRAWN)
}
NO_SCORES = "No suite judged this run: its data have no labels for one, or the recipe names none."
ALPHA = 0.05
LINE = 96  # characters of cells that a page of 1,300 pixels shows side by side
MARK = "†"
STAND_IN = f"{MARK} judged on emoji in the place of this data set, unless evaluate.roots names its folder"
STAR = f"* McNemar p < {ALPHA}, not corrected for the number of columns"


@dataclass(frozen=True)
class TableCell:
    """One number as it is printed; `best` marks the best mean of its column."""

    text: str
    best: bool = False


UNTRAINED = ("random", "initial")  # networks that rows are read by
LEAD = ("method", "targets from")


@dataclass(frozen=True)
class Line:
    """A method's cells, one a heading."""

    method: str
    graph: str
    cells: tuple[TableCell, ...]
    uses: str = ""  # what the method learns from

    @property
    def texts(self) -> tuple[str, ...]:
        """The cells as they are printed."""
        return tuple(each.text for each in self.cells)


@dataclass(frozen=True)
class Grid:
    """A table before it is rendered: headings of the cells, lines in reading order, what the numbers are.

    `title` is empty where the table stands alone; `lead` heads the columns that name a line, of which there are two or,
    with what a method uses, three; what is `below` stands under the table, a line each. `units` are those of the
    cells, one a heading, where a page says them; `marked` are the headings whose data set emoji may stand in for.
    """

    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    caption: str
    title: str = ""
    lead: tuple[str, ...] = LEAD
    below: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    marked: frozenset[str] = frozenset()

    @property
    def heads(self) -> tuple[str, ...]:
        """The headings as they are printed."""
        return tuple(each + MARK * (each in self.marked) for each in self.headings)

    @property
    def dense(self) -> bool:
        """Whether a page breaks the cells, so that a screen holds their line."""
        return sum(max(map(len, texts)) for texts in zip(*(line.texts for line in self.lines), strict=True)) > LINE

    def named(self, line: Line) -> tuple[str, ...]:
        """The cells of a line's leading columns."""
        return (line.method, line.graph, line.uses)[: len(self.lead)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        """How Rich prints it, as wide as its terminal allows."""
        yield from tables_of(self, options.max_width)
        yield Text(self.caption, "dim italic")
        yield from map(Text, self.below)


@dataclass(frozen=True)
class ScoreTables:
    """What `xclr compare` shows: tables for people; for other programs rows, and notes beside them."""

    grids: tuple[Grid, ...]
    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()


def comparisons(records: Iterable[Record], store: Store) -> list[Artifact]:
    """The score tables of runs, each once; raises StoreError when one is gone."""
    found = []
    for name in sorted({str(each.scores) for each in records}):
        artifact = store.find(Digest("comparison", name))
        if artifact is None:
            raise StoreError(f"the scores {name} are gone", "run the recipe again")
        found.append(artifact)
    return found


def answers_of(records: Sequence[Record], store: Store) -> Answers:
    """Where the answers behind the runs' scores are; suites that are not in the store are left out.

    Raises StoreError when the scores themselves are gone.
    """
    found: dict[tuple[str, str], Path] = {}
    for comparison in comparisons(records, store):
        for name in store.manifest(comparison).inputs:
            suite = store.find(Digest("suite", name))
            if suite is not None and (suite.path / "predictions.parquet").exists():
                rows = schema.read(suite.path / "scores.parquet", schema.SCORES, ["checkpoint", "suite"]).to_pylist()
                found |= {(row["checkpoint"], row["suite"]): suite.path / "predictions.parquet" for row in rows}
    return found


def methods_of(scores: pa.Table) -> list[Method]:
    """The pairs (method, graph) of these scores, in reading order."""
    rows = zip(scores.column("method").to_pylist(), scores.column("graph").to_pylist(), strict=True)
    return sorted(set(rows), key=lambda row: rank(*row))


def rank(method: str, graph: str) -> tuple[int, str, str]:
    """Sorts methods into reading order: the untrained network first, X-CLR last."""
    order = (*UNTRAINED, "simclr", "supcon", "clip", "xclr")
    first = next((index for index, name in enumerate(order) if method.startswith(name)), len(order))
    return first, method, graph


def base_of(scores: pa.Table, against: str) -> Method:
    """The first method of that name; raises StoreError when there is none."""
    known = methods_of(scores)
    named = [row for row in known if row[0] == against]
    if not named:
        names = dict.fromkeys(row[0] for row in known)
        raise StoreError(f"no method {against!r} in these scores", "there are: " + ", ".join(names))
    return named[0]


def columns_of(keys: Collection[Key], suite: str | None = None) -> dict[str, list[Column]]:
    """The columns that some score has, by table: those of GROUPS, or every split and metric of one suite.

    Where GROUPS knows none of them, there is a table for each suite. Raises StoreError for a suite without scores.
    """
    suites = sorted({key[0] for key in keys})
    if suite is not None:
        if suite not in suites:
            raise StoreError(f"no scores of suite {suite!r}", "there are: " + (", ".join(suites) or "none"))
        return {suite: every_column(suite, keys)}
    known = {title: [each for each in group if each.key in keys] for title, group in GROUPS.items()}
    known = {title: columns for title, columns in known.items() if columns}
    return known or {each: every_column(each, keys) for each in suites}


def every_column(suite: str, keys: Iterable[Key]) -> list[Column]:
    """Every split and metric of a suite that is among the keys, in an order for people."""
    own = sorted((key for key in keys if key[0] == suite), key=lambda key: (_natural(key[1]), _place(key[2])))
    return [Column(key[1] if key[1] == key[2] else " ".join(key[1:]), key, "") for key in own]


def headline_of(suite: str, keys: Collection[Key]) -> Column | None:
    """The score among the keys by which a suite is told in one number; None where there is none of it."""
    own = {key for key in keys if key[0] == suite}
    known = [column for group in GROUPS.values() for column in group if column.key in own]
    if known or not own:
        return next(iter(known), None)
    first = every_column(suite, own)[0]
    return first._replace(heading=f"{suite} {first.heading}")


def _place(metric: str) -> tuple[bool, list[str | int]]:
    return metric == "per_class", _natural(metric)  # after top1 and top5


def _natural(text: str) -> list[str | int]:
    """Sorts 2-percent before 10-percent."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", text)]


def grids_of(scores: pa.Table, suite: str | None = None) -> list[Grid]:
    """Method by suite in percent, mean over seeds and its 95% interval: a table for each group of columns.

    With a suite, all its scores. Raises StoreError for a suite without scores.
    """
    means: dict[Key, list[float]] = {}
    found = summarise(scores)
    for each in found:
        means.setdefault(_key(each), []).append(each.mean)
    best = {key: best_mean(values, key) for key, values in means.items()}
    shown = [(each, TableCell(percent(each.mean, each.ci95), each.mean == best[_key(each)])) for each in found]
    return _grids("mean", shown, suite, scores)


def distance_grids(scores: pa.Table, found: Sequence[Distance], against: str, suite: str | None = None) -> list[Grid]:
    """The distances of these scores, as grids_of shows those; a star marks what McNemar's test tells from 0."""
    shown = [(each, TableCell(distance_text(each))) for each in found]
    return _grids(f"distance to {against} of the same seed, mean", shown, suite, scores)


def remarks_of(scores: pa.Table, suites: Collection[str]) -> list[str]:
    """What a reader of these suites' values must know.

    Learning rates, how methods were trained otherwise than others, what suites judged, and what stands in for data.
    """
    columns = ["method", "rate", "trained", "suite", "remark"]
    rows = [row for row in scores.select(columns).to_pylist() if row["suite"] in suites]
    by_rate: dict[str, list[str]] = {}
    for row in rows:
        if row["rate"] and row["method"] not in by_rate.setdefault(row["rate"], []):
            by_rate[row["rate"]].append(row["method"])
    rates = [f"{each} ({', '.join(methods)})" if len(by_rate) > 1 else each for each, methods in by_rate.items()]
    found = [f"highest learning rate: {'; '.join(rates)}"] if rates else []
    found += [f"{row['method']}: trained with {row['trained']}" for row in rows if row["trained"]]
    found += [f"{row['suite']}: {row['remark']}" for row in rows if row["remark"] is not None]
    return [*dict.fromkeys(found), *([STAND_IN] if stand_in(scores) & set(suites) else [])]


def marked_of(columns: Iterable[Column], scores: pa.Table) -> frozenset[str]:
    """The headings of the columns whose data set emoji may stand in for."""
    suites = stand_in(scores)
    return frozenset(each.heading for each in columns if each.key[0] in suites)


def stand_in(scores: pa.Table) -> frozenset[str]:
    """The suites whose data set may be emoji in its layout."""
    annotated = pa.array(name for name, source in SOURCES.items() if source.annotated)
    ours = scores.filter(pc.is_in(scores["dataset"], annotated))
    return frozenset(ours["suite"].to_pylist()) & {name for name, needs in SUITES.items() if needs.datasets}


def _key(found: Summary | Distance) -> Key:
    return found.suite, found.split, found.metric


def _grids(
    what: str, shown: Sequence[tuple[Summary | Distance, TableCell]], suite: str | None, scores: pa.Table
) -> list[Grid]:
    cells: dict[Method, dict[Key, TableCell]] = {}
    for each, cell in shown:
        cells.setdefault((each.method, each.graph), {})[_key(each)] = cell
    uses = {
        (row["method"], row["graph"]): row["uses"] or ""
        for row in scores.select(["method", "graph", "uses"]).to_pylist()
    }
    far = any(isinstance(each, Distance) for each, _ in shown)
    grids, groups = list[Grid](), columns_of({_key(each) for each, _ in shown}, suite)
    for title, columns in groups.items():
        keys = [column.key for column in columns]
        caption = caption_of(what, [each for each, _ in shown if _key(each) in keys])
        caption = "; ".join([caption, *remarks_of(scores, {key[0] for key in keys})])
        lines = _lines(keys, cells, uses)
        told = {(line.method, line.graph) for grid in grids for line in grid.lines}
        new = any(line.uses and (line.method, line.graph) not in told for line in lines)
        lead = (*LEAD, "uses") if new else LEAD
        headings, units = zip(*((each.heading, "points" if far else each.unit) for each in columns), strict=True)
        name = title if len(groups) > 1 else ""
        grids.append(Grid(headings, lines, caption, name, lead, units=units, marked=marked_of(columns, scores)))
    return grids


def _lines(
    keys: Sequence[Key], cells: Mapping[Method, Mapping[Key, TableCell]], uses: Mapping[Method, str]
) -> tuple[Line, ...]:
    """A line for each method that has one of the scores."""
    there = [method for method in cells if any(key in cells[method] for key in keys)]
    there.sort(key=lambda method: rank(*method))
    return tuple(
        Line(*method, tuple(cells[method].get(key, TableCell("-")) for key in keys), uses.get(method, ""))
        for method in there
    )


def best_mean(means: Sequence[float], key: Key) -> float | None:
    """The best mean of a column, where there is something to be better than."""
    if len(means) < 2:
        return None
    return min(means) if key[2] == "gap" else max(means)


def caption_of(what: str, shown: Sequence[Summary | Distance]) -> str:
    """What the numbers of a table are: `what` of how many seeds, with which interval."""
    kinds = sorted({each.ci_kind for each in shown} - {"none"})
    seeds = max((each.seeds for each in shown), default=0)
    interval = f"± 95% half width ({', '.join(kinds)})" if kinds else "no interval"
    far = [each for each in shown if isinstance(each, Distance)]
    parts = [f"{'points' if far else 'percent'}, {what} of {seeds} seed{'s' * (seeds != 1)} {interval}"]
    if any(each.metric == "gap" for each in shown):
        parts.append("a smaller gap is better")
    if any(each.p is not None for each in far):
        parts.append(STAR)
    return "; ".join([*parts, *notes_of(far)])


def notes_of(found: Iterable[Distance]) -> tuple[str, ...]:
    """The notes of distances, each once."""
    return tuple(dict.fromkeys(each.note for each in found if each.note))


def percent(value: float, ci95: float | None = None, sign: str = "") -> str:
    """A fraction in percent and its half width; `sign` "+" gives positive ones a sign."""
    rounded = round(100 * value, 1) + 0.0  # no minus before a zero
    return f"{rounded:{sign}.1f}" + ("" if ci95 is None else f" ± {100 * ci95:.1f}")


def distance_text(found: Distance) -> str:
    """A distance in percent, with a star where McNemar's p is below ALPHA."""
    star = " *" if found.p is not None and found.p < ALPHA else ""
    return percent(found.difference, found.ci95, "+") + star


def tables_of(grid: Grid, width: int) -> list[Table]:
    """A grid's cells for a terminal of so many characters: where they do not fit, tables one below another.

    What methods use is then a table of its own, the last.
    """
    lead = [list(column) for column in zip(grid.lead, *map(grid.named, grid.lines), strict=True)]
    columns = [[name, *(line.cells[at].text for line in grid.lines)] for at, name in enumerate(grid.heads)]
    if _width([*lead, *columns]) <= width:
        return [_table([*lead, *columns], grid.title)]
    names, more = lead[: len(LEAD)], lead[len(LEAD) :]
    parts = [[*names]]
    for column in columns:
        if len(parts[-1]) > len(names) and _width([*parts[-1], column]) > width:
            parts.append([*names])
        parts[-1].append(column)
    parts += [[*names, *more]] if more else []
    return [_table(each, "" if number else grid.title) for number, each in enumerate(parts)]


def _width(columns: Iterable[Sequence[str]]) -> int:
    return 1 + sum(3 + max(map(len, column)) for column in columns)  # a rule and two spaces each


def _table(columns: Sequence[Sequence[str]], title: str) -> Table:
    table = Table(*(escape(column[0]) for column in columns), title=escape(title) or None, title_justify="left")
    for row in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*map(escape, row))
    return table


def markdown_of(scores: pa.Table) -> str:
    """The scores' grids as GitHub Markdown, best means in bold."""
    if not scores.num_rows:
        return NO_SCORES
    return "\n".join(markdown_grid(each) for each in grids_of(scores))


def markdown_grid(grid: Grid) -> str:
    """A grid as GitHub Markdown, best means in bold."""
    rows = [[*map(plain, (*grid.lead, *grid.heads))], ["---"] * (len(grid.lead) + len(grid.headings))]
    for line in grid.lines:
        numbers = [f"**{cell.text}**" if cell.best else cell.text for cell in line.cells]
        rows.append([*map(plain, grid.named(line)), *numbers])
    title = f"**{grid.title}**\n\n" if grid.title else ""
    return title + "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{plain(grid.caption)}\n"


def plain(text: str) -> str:
    """Text in which Markdown finds nothing to act on, in one line: another could be a heading or a rule."""
    return "".join(f"\\{each}" if each in "\\|*_`<[" else each for each in in_one_line(text))


def view_of(scores: pa.Table, answers: Answers, against: str | None = None, suite: str | None = None) -> ScoreTables:
    """What is shown of scores, or of their distances to a method, and of one suite where it is named.

    `answers` serve the distances. Raises StoreError for a method or suite that these scores do not have.
    """
    if not scores.num_rows:
        return ScoreTables((), ())
    kept = scores if suite is None else scores.filter(pc.equal(scores["suite"], suite))
    grids = grids_of(scores, suite)  # a suite that is not there fails here
    if against is None:
        return ScoreTables(tuple(grids), tuple(kept.to_pylist()))
    found = distances_of(kept, base_of(kept, against), answers)
    if not found:
        raise StoreError(
            f"no other method has a score that {against} has too, of the same seed",
            "name more runs: xclr compare RUN RUN",
        )
    rows = tuple(each.row() for each in found)
    return ScoreTables(tuple(distance_grids(kept, found, against, suite)), rows, notes=notes_of(found))
