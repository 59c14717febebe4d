"""What came of a sweep, to read: its cells by setting, the best of them and what cannot be told from it, failures.

All is read from the record and the store: nothing is planned again, so that it works when the source data are gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from xclr.artifact import Usage
from xclr.evaluation.score import Summary, summarise, t_half_width
from xclr.evaluation.significance import Key
from xclr.record import Record
from xclr.report.tables import (
    Column,
    Grid,
    Line,
    TableCell,
    best_mean,
    caption_of,
    columns_of,
    headline_of,
    markdown_grid,
    marked_of,
    percent,
    plain,
    rank,
    remarks_of,
)
from xclr.sweep.cells import ORDER, CellLine, CellState, counts
from xclr.sweep.spec import Draw, Sweep, Values, short, spelled, text_of

NOT_JUDGED = "no suite has judged a cell yet"
NAMED = 6  # rivals of the best, by name
How = Literal["paired", "overlap", "unknown"]
TOLD: Mapping[How, str] = {
    "paired": "not to be told apart from it",
    "overlap": "with intervals that overlap its own",
    "unknown": "without intervals that could tell them from it",
}


@dataclass(frozen=True)
class Swept:
    """A sweep's run: how its cells stand, and what is known of them.

    `scores` are those of the suites that are in the store, with `cell`, the place among the lines of the cell that the
    suite was read for; `usages` are by digest.
    """

    record: Record
    lines: tuple[CellLine, ...]
    scores: pa.Table
    usages: Mapping[str, Usage]

    @property
    def sweep(self) -> Sweep:
        """What was swept."""
        assert self.record.sweep is not None, "the run of a recipe is no sweep"
        return self.record.sweep

    @property
    def keys(self) -> frozenset[Key]:
        """The scores that some cell has."""
        return frozenset((row["suite"], row["split"], row["metric"]) for row in self.scores.to_pylist())


@dataclass(frozen=True)
class Setting:
    """Cells that differ by the seed only, what their jobs used, and their scores: summed up, and by seed."""

    label: str
    values: Values
    lines: tuple[CellLine, ...]
    gpu_hours: float | None
    summaries: Mapping[Key, Summary]
    seeds: Mapping[Key, Mapping[int, float]]

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.label} {spelled(self.values)}".strip()

    @property
    def state(self) -> str:
        """How many of its cells are done, and how the others stand."""
        found = counts(self.lines)
        rest = [f"{count} {state}" for state, count in found.items() if state != "done"]
        return ", ".join([f"{found.get('done', 0)} of {len(self.lines)}", *rest])


class Rival(NamedTuple):
    """A setting that is not to be told from the best one, and by what."""

    setting: Setting
    how: How


@dataclass(frozen=True)
class Best:
    """The setting with the best mean of the score that judges, among so many that have it, and its rivals.

    With three common seeds or more a rival's paired difference, Student-t over these seeds, may be 0 (paired); with
    fewer its interval overlaps (overlap), or one of the two has none (unknown).
    """

    heading: str
    setting: Setting
    summary: Summary
    rivals: tuple[Rival, ...]
    among: int

    def __str__(self) -> str:
        """The sentence for people."""
        score = percent(self.summary.mean, self.summary.ci95)
        parts = [f"best by {self.heading}: {self.setting.title}: {score} ({_interval(self)})"]
        parts += [f"{words}: {_named(own)}" for how, words in TOLD.items() if (own := self.by(how))]
        if self.among > 1:
            parts.append(f"picked after looking at {self.among} settings, so it is optimistic")
        return "; ".join(parts)

    def by(self, how: How) -> list[Setting]:
        """The rivals that are so by this."""
        return [each.setting for each in self.rivals if each.how == how]


def settings_of(swept: Swept) -> list[Setting]:
    """The settings of a sweep in reading order: baselines first, values in the sweep's order."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for place, line in enumerate(swept.lines):
        groups.setdefault((line.cell.method, line.cell.graph, spelled(line.cell.values)), []).append(place)
    rows: dict[int, list[Mapping[str, Any]]] = {}
    for row in swept.scores.to_pylist():
        cell = swept.lines[row["cell"]].cell
        own = {"method": cell.method, "graph": cell.graph, "seed": cell.seed}  # its row has the network's own names
        rows.setdefault(row["cell"], []).append(row | own)
    found = [
        _setting(swept, places, [row for place in places for row in rows.get(place, ())]) for places in groups.values()
    ]
    return sorted(found, key=lambda each: (*rank(each.label, "")[:2], bool(each.values)))


def _setting(swept: Swept, places: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> Setting:
    lines = tuple(swept.lines[place] for place in places)
    cell = lines[0].cell
    used = _used(swept, [ref.digest for line in lines for ref in line.cell.stages])
    seeds: dict[Key, dict[int, float]] = {}
    for row in rows:
        seeds.setdefault((row["suite"], row["split"], row["metric"]), {})[row["seed"]] = row["value"]
    return Setting(
        label=cell.label,
        values=cell.values,
        lines=lines,
        gpu_hours=sum(each.gpu_hours for each in used) if used else None,
        summaries={(each.suite, each.split, each.metric): each for each in summarise(rows)},
        seeds=seeds,
    )


def _used(swept: Swept, digests: Sequence[str]) -> list[Usage]:
    """What these stages used, each once."""
    return [swept.usages[digest] for digest in dict.fromkeys(digests) if digest in swept.usages]


def total_gpu_hours(swept: Swept) -> float | None:
    """What all that the sweep planned used, each stage once, whoever made it; None where nobody counted."""
    return sum(each.gpu_hours for each in swept.usages.values()) if swept.usages else None


def total_core_hours(swept: Swept) -> float | None:
    """The same in hours of allocated cores."""
    return sum(each.cpu_hours for each in swept.usages.values()) if swept.usages else None


def state_counts(swept: Swept) -> dict[CellState, int]:
    """How many cells stand in each state that some cell is in."""
    return counts(swept.lines)


def judged_by(swept: Swept) -> Column | None:
    """The score that names the best setting: the headline of the sweep's judge; None where no cell has it."""
    suite = swept.sweep.judge
    return None if suite is None else headline_of(suite, swept.keys)


def best_of(swept: Swept) -> Best | None:
    """The best setting by the sweep's judge; None where no cell is judged by it."""
    column = judged_by(swept)
    if column is None:
        return None
    key = column.key
    there = [each for each in settings_of(swept) if key in each.summaries]
    top = best_mean([each.summaries[key].mean for each in there], key)
    best = next(each for each in there if top in {None, each.summaries[key].mean})
    ties = ((other, _tie(best, other, key)) for other in there if other is not best)
    rivals = tuple(Rival(other, how) for other, how in ties if how is not None)
    return Best(column.heading, best, best.summaries[key], rivals, len(there))


def _tie(best: Setting, other: Setting, key: Key) -> How | None:
    """By what two settings are not to be told apart; None where they are."""
    own, its = best.seeds[key], other.seeds[key]
    differences = [own[seed] - its[seed] for seed in own.keys() & its.keys()]
    if len(differences) >= 3:
        return "paired" if abs(float(np.mean(differences))) <= t_half_width(differences) else None
    a, b = best.summaries[key], other.summaries[key]
    if a.ci95 is None or b.ci95 is None:
        return "unknown"
    return "overlap" if abs(a.mean - b.mean) <= a.ci95 + b.ci95 else None


def _interval(best: Best) -> str:
    """What stands behind ±, and how many of the seeds there are."""
    summary, planned = best.summary, len(best.setting.lines)
    lacking = "" if summary.seeds == planned else f", {summary.seeds} of {planned} seeds"
    match summary.ci_kind:
        case "t-seeds":
            return f"95%, t over {summary.seeds} seeds{lacking}"
        case "bootstrap":
            return f"95%, bootstrap over {summary.n:,} items{lacking}"
        case "t-draws":
            return f"95%, t over draws of labels{lacking}"
        case _:
            return f"no interval over {summary.seeds} seed{'s' * (summary.seeds != 1)}{lacking}"


def _named(settings: Sequence[Setting]) -> str:
    more = len(settings) - NAMED
    return ", ".join([*(each.title for each in settings[:NAMED]), *([f"and {more} more"] if more > 0 else [])])


def grids_of_sweep(swept: Swept, suite: str | None = None) -> list[Grid]:
    """A line for every setting, judged or not: its scores in percent, how its cells stand, what they used.

    The score that judges comes first. With a suite, all its scores; raises StoreError for a suite without scores.
    """
    settings, judge = settings_of(swept), judged_by(swept)
    key = judge.key if judge is not None else None
    groups = columns_of(swept.keys, suite) or {"": []}
    ordered = sorted(groups.items(), key=lambda group: key not in [each.key for each in group[1]])
    grids: list[Grid] = []
    for title, columns in ordered:
        shown = sorted(columns, key=lambda column: column.key != key)
        grids.append(_grid(swept, settings, shown, title if len(groups) > 1 else "", first=not grids))
    return grids


def _grid(swept: Swept, settings: Sequence[Setting], columns: Sequence[Column], title: str, *, first: bool) -> Grid:
    """One table; how the cells stand is in the first alone."""
    parts = [(column.heading, column.unit, _cells(settings, column.key)) for column in columns]
    if first:
        parts.append(("cells", "done", [TableCell(each.state) for each in settings]))
    if first and any(each.gpu_hours for each in settings):
        parts.append(("GPU-hours", "", [TableCell(hours(each.gpu_hours)) for each in settings]))
    lines = [
        Line(setting.label, value_text(swept.sweep, setting.values), tuple(cells[place] for *_, cells in parts))
        for place, setting in enumerate(settings)
    ]
    axes = swept.sweep.axes
    lead = ("method", short(axes[0]) if len(axes) == 1 else "setting")
    headings, units = tuple(heading for heading, *_ in parts), tuple(unit for _, unit, _ in parts)
    caption, marked = _caption(swept, settings, columns), marked_of(columns, swept.scores)
    return Grid(headings, tuple(lines), caption, title, lead, units=units, marked=marked)


def _cells(settings: Sequence[Setting], key: Key) -> list[TableCell]:
    there = [each.summaries.get(key) for each in settings]
    best = best_mean([each.mean for each in there if each is not None], key)
    return [
        TableCell("-") if each is None else TableCell(percent(each.mean, each.ci95), each.mean == best)
        for each in there
    ]


def _caption(swept: Swept, settings: Sequence[Setting], columns: Sequence[Column]) -> str:
    keys = [column.key for column in columns]
    shown = [each.summaries[key] for each in settings for key in keys if key in each.summaries]
    if not shown:
        return NOT_JUDGED
    return "; ".join([caption_of("mean", shown), *remarks_of(swept.scores, {key[0] for key in keys})])


def value_text(sweep: Sweep, values: Values) -> str:
    """A setting's values as a table shows them: the one of a sweep's only axis without its field."""
    if not values:
        return "-"
    return text_of(values[sweep.axes[0]]) if len(sweep.axes) == 1 else spelled(values)


def hours(number: float | None) -> str:
    """Hours as a table shows them."""
    if number is None:
        return "-"
    return f"{number:,.2f}" if number < 10 else f"{number:,.0f}"


def failures_of(swept: Swept) -> list[str]:
    """A line for each cell that failed or was stopped: which, at what, why, and in which job."""
    return [_failure(each) for each in swept.lines if each.state in {"failed", "stopped"}]


def _failure(line: CellLine) -> str:
    job = f" (job {line.job})" if line.job else ""
    return f"{line.cell.title}: {line.level} {line.state}: {first_line(line.reason)}{job}"


def first_line(reason: str) -> str:
    """A reason without what follows its first line."""
    return next(iter(reason.strip().splitlines()), "no reason is known")


def rows_of(swept: Swept) -> list[dict[str, Any]]:
    """The cells for other programs, in the sweep's order; scores by "suite/split/metric"."""
    scores: dict[int, dict[str, float]] = {}
    for row in swept.scores.to_pylist():
        scores.setdefault(row["cell"], {})[f"{row['suite']}/{row['split']}/{row['metric']}"] = row["value"]
    return [_row(swept.sweep.name, line, scores.get(place, {})) for place, line in enumerate(swept.lines)]


def _row(sweep: str, line: CellLine, scores: Mapping[str, float]) -> dict[str, Any]:
    cell = line.cell
    named = {"sweep": sweep, "method": cell.method, "graph": cell.graph, "seed": cell.seed, "values": dict(cell.values)}
    state = {"state": line.state, "level": line.level, "reason": line.reason, "job": line.job}
    made = {"training": cell.training.digest, "gpu_hours": line.gpu_hours, "scores": dict(scores)}
    return named | state | made


def summary_of(swept: Swept) -> dict[str, float]:
    """The sweep in numbers: cells by state, hours, and the score of the best setting."""
    numbers: dict[str, float | None] = {"cells": len(swept.lines)}
    found = state_counts(swept)
    numbers |= {f"cells/{state.replace(' ', '_')}": found.get(state, 0) for state in ORDER}
    numbers |= {"gpu_hours": total_gpu_hours(swept), "core_hours": total_core_hours(swept)}
    if (best := best_of(swept)) is not None:
        score = f"best/{best.summary.suite}/{best.summary.split}/{best.summary.metric}"
        numbers |= {score: best.summary.mean, f"{score}/ci95": best.summary.ci95}
    return {name: value for name, value in numbers.items() if value is not None}


def tags_of(swept: Swept) -> dict[str, str]:
    """What was swept, and which setting is the best."""
    sweep = swept.sweep
    values = {**sweep.grid, **sweep.lists, **sweep.random}
    axes = {f"axis.{short(field)}": _spelled_axis(each) for field, each in values.items()}
    best = best_of(swept)
    return axes | {"seeds": ", ".join(map(str, sweep.recipe.seeds)), "best": str(best) if best else NOT_JUDGED}


def _spelled_axis(values: Draw | tuple[Any, ...]) -> str:
    if isinstance(values, Draw):
        return f"{values.low} to {values.high}" + ", over the logarithm" * values.log + ", whole" * values.whole
    return ", ".join(map(text_of, values))


def markdown_of_sweep(swept: Swept) -> str:
    """The sweep as GitHub Markdown: how it went, the best setting, the tables, what failed."""
    return "\n\n".join(_markdown(swept)) + "\n"


def _markdown(swept: Swept) -> Iterator[str]:
    yield plain(went(swept)) + "."
    if (best := best_of(swept)) is not None:
        yield plain(str(best)) + "."
    yield from (markdown_grid(grid).rstrip() for grid in grids_of_sweep(swept))
    failures = failures_of(swept)
    if failures:
        yield "\n".join(f"- {plain(line)}" for line in failures)
        yield f"`xclr retry {swept.sweep.name}` tries them again."


def went(swept: Swept) -> str:
    """How many cells stand how, and what all took, in a line."""
    found, total = state_counts(swept), total_gpu_hours(swept)
    parts = [f"{len(swept.lines)} cells: " + ", ".join(f"{count} {state}" for state, count in found.items())]
    return "; ".join([*parts, *([f"{hours(total)} GPU-hours"] if total else [])])
