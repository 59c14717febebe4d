"""Pictures of a sweep: the scores against what was swept, few-shot curves, settings as parallel coordinates."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xclr.evaluation.significance import Key
from xclr.report.html import INK
from xclr.report.page import COLOURS
from xclr.report.sweep import Setting, Swept, judged_by, settings_of
from xclr.report.tables import GROUPS, Column
from xclr.sweep.spec import Sweep, short, spelled, text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES = len(COLOURS)  # of a plot, at most
APART = 0.13  # of an axis: nearer labels would touch
CHARACTER = 0.021  # of an axis, wide
LOG_FROM = 10.0  # largest by smallest value
LACKS = -0.17  # where a setting crosses an axis that it does not depend on
BESIDE: tuple[Key, ...] = (  # plotted beside the judge's score
    ("knn", "val", "top1"),
    ("imagenet9", "gap", "gap"),
    ("factors", "gap", "gap"),
    ("factors", "colour", "top1"),
)
WORDS: Mapping[str, str] = {
    "train.fraction": "share of the training pictures",
    "train.neighbourhoods": "share of a batch that comes by neighbourhoods of the graph",
    "data.pictures": "training pictures",
    "data.noise": "share of the captions that are of other scenes",
    "graph.corrupt": "edges that the graph lacks, and false ones, for each true one",
}
UNITS: Mapping[str, str] = {  # of the fields that are swept as numbers; epochs are their own
    "train.batch_size": "pictures",
    "train.image_size": "pixels",
    "train.width": "channels",
    "train.learning_rate": "no unit",
    "train.weight_decay": "no unit",
    "objective.temperature": "no unit",
    "objective.target_temperature": "no unit",
    "data.limit": "rows",
    "graph.k": "captions",
    "graph.cutoff": "cosine",
}
RAMP = ("#8b919a", "#3b82c4", "#8561c5", "#c2508f", "#d9822b")  # worst to best
Floats = tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """Means in percent at values of an axis, and half widths of their intervals, NaN where there is none."""

    label: str
    values: tuple[Any, ...]
    means: Floats
    halves: Floats
    colour: str


@dataclass(frozen=True)
class Level:
    """A score that does not depend on the axis."""

    label: str
    mean: float
    half: float
    colour: str


@dataclass(frozen=True)
class Chart:
    """One score against one axis; `joined` where its points are steps of a line."""

    title: str
    across: str
    up: str
    curves: tuple[Curve, ...]
    levels: tuple[Level, ...] = ()
    joined: bool = True
    note: str = ""

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Labels and colours of what is drawn."""
        curves = [(each.label, each.colour) for each in self.curves]
        return curves + [(each.label, each.colour) for each in self.levels]


@dataclass(frozen=True)
class Coordinate:
    """One of the parallel axes: where each setting crosses it, 0 to 1 or LACKS, and what stands beside it."""

    heading: str
    places: Floats
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Parallel:
    """Settings as lines over parallel axes, the score last; `shades` are the scores, 0 worst, 1 best."""

    coordinates: tuple[Coordinate, ...]
    shades: Floats


def shown_columns(swept: Swept) -> list[Column]:
    """The score that judges, and those of BESIDE that some cell has."""
    judge = judged_by(swept)
    known = {column.key: column for group in GROUPS.values() for column in group}
    beside = [known[key] for key in BESIDE if key in swept.keys and (judge is None or key != judge.key)]
    return ([] if judge is None else [judge]) + beside


class Placed(NamedTuple):
    """A setting, the line that it is on, and its point of that line; None where it does not depend on the axis."""

    setting: Setting
    line: str
    point: str | None


def charts_of(swept: Swept, axis: str) -> list[Chart]:
    """Each of the shown scores against one axis, a line for every choice of the others where these are few.

    What is drawn by random search is a point each, and no line.
    """
    settings = settings_of(swept)
    lines, note = _lines(swept.sweep, settings, axis)
    drawn = axis in swept.sweep.random
    joined = not drawn and is_numeric([each.values[axis] for each in settings if axis in each.values])
    placed = [
        Placed(each, line, None if axis not in each.values else each.title if drawn else text_of(each.values[axis]))
        for each, line in zip(settings, lines, strict=True)
    ]
    found = [(column, *_drawn(column.key, placed, axis)) for column in shown_columns(swept)]
    return [
        Chart(column.heading, axis_label(axis), f"{column.heading}, {column.unit}", curves, levels, joined, note)
        for column, curves, levels in found
        if curves
    ]


def _lines(sweep: Sweep, settings: Sequence[Setting], axis: str) -> tuple[list[str], str]:
    """The line that each setting is on, and what a reader must know of lines."""
    moving = next((set(part) for part in (sweep.lists, sweep.random) if axis in part), {axis})
    held = [field for field in sweep.axes if field not in moving]
    apart = [
        f"{each.label} {spelled({field: each.values[field] for field in held if field in each.values})}".strip()
        for each in settings
    ]
    along = ", ".join(short(field) for field in sweep.axes if field in moving - {axis})
    note = f"{along} {'vary' if ',' in along else 'varies'} along" if along else ""
    if len(set(apart)) <= LINES or not held:
        return apart, note
    means = (
        "" if axis in sweep.random else f"a point is the mean over {', '.join(map(short, held))}, without an interval"
    )
    return [each.label for each in settings], "; ".join(filter(None, (means, note)))


def _drawn(key: Key, placed: Sequence[Placed], axis: str) -> tuple[tuple[Curve, ...], tuple[Level, ...]]:
    """The curves of the settings that depend on an axis and have a score, and the levels of those that do not."""
    lines = dict.fromkeys(each.line for each in placed)
    colours = {line: COLOURS[place % len(COLOURS)] for place, line in enumerate(lines)}
    groups: dict[str, dict[str | None, list[Setting]]] = {}
    for each in placed:
        if key in each.setting.summaries:
            groups.setdefault(each.line, {}).setdefault(each.point, []).append(each.setting)
    levels = tuple(Level(line, *_mean(own[None], key), colours[line]) for line, own in groups.items() if None in own)
    points = {
        line: [(own[0].values[axis], *_mean(own, key)) for point, own in groups[line].items() if point is not None]
        for line in groups
    }
    return tuple(_curve(line, own, colours[line]) for line, own in points.items() if own), levels


def _curve(label: str, points: Sequence[tuple[Any, float, float]], colour: str) -> Curve:
    ordered = sorted(points, key=lambda point: point[0]) if is_numeric([point[0] for point in points]) else points
    values, means, halves = zip(*ordered, strict=True)
    return Curve(label, values, means, halves, colour)


def _mean(settings: Sequence[Setting], key: Key) -> tuple[float, float]:
    """Mean and half width in percent; several settings have no interval together."""
    found = [each.summaries[key] for each in settings]
    half = found[0].ci95 if len(found) == 1 else None
    return 100 * float(np.mean([each.mean for each in found])), float("nan") if half is None else 100 * half


def few_shot_charts(swept: Swept) -> list[Chart]:
    """Top-1 against how many of the training pictures have a label, a line for every setting, or for the best."""
    settings, judge = settings_of(swept), judged_by(swept)
    there = [each for each in settings if any(key[0] == "few-shot" for key in each.summaries)]
    note = ""
    if len(there) > LINES:
        note = f"the {LINES} best of {len(there)} settings"
        there = sorted(there, key=lambda each: -_score(each, judge))[:LINES]
    words = {"percent": "training pictures with a label, %", "shot": "training pictures of a class with a label"}
    found = {unit: _few_shot_curves(there, unit) for unit in words}
    return [
        Chart("few labels", words[unit], "top-1, %", curves, joined=True, note=note)
        for unit, curves in found.items()
        if curves
    ]


def _few_shot_curves(settings: Sequence[Setting], unit: str) -> tuple[Curve, ...]:
    curves = []
    for place, setting in enumerate(settings):
        numbers = {
            int(match[1]): key
            for key in setting.summaries
            if (match := re.fullmatch(rf"(\d+)-{unit}", key[1])) and (key[0], key[2]) == ("few-shot", "top1")
        }
        points = [(number, *_mean([setting], key)) for number, key in numbers.items()]
        if points:
            curves.append(_curve(setting.title, points, COLOURS[place]))
    return tuple(curves)


def _score(setting: Setting, judge: Column | None) -> float:
    found = setting.summaries.get(judge.key) if judge is not None else None
    return found.mean if found is not None else 0.0


def parallel_of(swept: Swept) -> Parallel | None:
    """The judged settings over method, axes and score; None where there are fewer than two to tell apart."""
    judge = judged_by(swept)
    if judge is None:
        return None
    settings = [each for each in settings_of(swept) if judge.key in each.summaries]
    if len(settings) < 2:
        return None
    means = [each.summaries[judge.key].mean for each in settings]
    found = [
        _coordinate(axis_label(axis), [each.values.get(axis, ...) for each in settings]) for axis in swept.sweep.axes
    ]
    labels = [each.label for each in settings]
    found = ([_coordinate("method", labels)] if len(set(labels)) > 1 else []) + found
    low, high = min(means), max(means)
    places = tuple((mean - low) / (high - low) if high > low else 0.5 for mean in means)
    ticks = tuple((place, f"{100 * (low + place * (high - low)):.1f}") for place in (0, 0.25, 0.5, 0.75, 1))
    score = Coordinate(f"{judge.heading}, {judge.unit}", places, ticks if high > low else ((0.5, f"{100 * low:.1f}"),))
    shades = places if judge.key[2] != "gap" else tuple(1 - place for place in places)
    return Parallel((*found, score), shades)


def _coordinate(heading: str, values: Sequence[Any]) -> Coordinate:
    """An axis of numbers or of words; the value ... stands for a setting that has none."""
    there = {text_of(value): value for value in values if value is not ...}
    numbers = is_numeric(list(there.values()))
    names = sorted(there, key=lambda name: there[name]) if numbers else list(there)
    where = positions([there[name] for name in names])
    places = dict(zip(names, where, strict=True))
    ticks = [(places[name], name) for name in (spaced(names, where, APART / 2) if numbers else names)]
    if there and any(value is ... for value in values):
        ticks.append((LACKS, "–"))
    return Coordinate(
        heading, tuple(LACKS if value is ... else places[text_of(value)] for value in values), tuple(ticks)
    )


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether all are numbers, and there are some."""
    return bool(values) and all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)


def is_log(values: Sequence[float]) -> bool:
    """Whether numbers are shown over their logarithm: positive ones that span a factor of LOG_FROM."""
    return min(values) > 0 and max(values) / min(values) >= LOG_FROM


def positions(values: Sequence[Any]) -> Floats:
    """Places of distinct values on an axis from 0 to 1: of numbers by size, of words side by side."""
    if len(values) < 2:
        return (0.5,) * len(values)
    if not is_numeric(values):
        return tuple(place / (len(values) - 1) for place in range(len(values)))
    scaled = np.log(np.array(values, float)) if is_log(values) else np.array(values, float)
    return tuple(((scaled - scaled.min()) / (scaled.max() - scaled.min())).tolist())


def spaced(names: Sequence[str], places: Sequence[float], apart: float) -> list[str]:
    """Ascending names at least so far apart, the first and the last among them."""
    kept: list[int] = []
    for index, place in enumerate(places):
        if not kept or place - places[kept[-1]] >= apart:
            kept.append(index)
        elif index == len(places) - 1 and len(kept) > 1:
            kept[-1] = index
    return [names[index] for index in kept]


def axis_label(axis: str) -> str:
    """What an axis shows, in words, and its unit where it has one."""
    words = WORDS.get(axis, short(axis).replace("_", " "))
    return f"{words}, {UNITS[axis]}" if axis in UNITS else words


def draw_chart(chart: Chart) -> Callable[[Axes], None]:
    """What puts a chart on axes."""

    def draw(axes: Axes) -> None:
        values = {text_of(value): value for curve in chart.curves for value in curve.values}
        numbers = is_numeric(list(values.values()))
        places = {name: float(value) if numbers else float(place) for place, (name, value) in enumerate(values.items())}
        for level in chart.levels:
            axes.axhline(level.mean, linestyle="--", linewidth=1, color=level.colour, label=level.label)
            if np.isfinite(level.half):
                low, high = level.mean - level.half, level.mean + level.half
                axes.axhspan(low, high, color=level.colour, alpha=0.1, linewidth=0)
        for number, curve in enumerate(chart.curves):
            aside = 0.0 if numbers else 0.1 * (number - (len(chart.curves) - 1) / 2)
            _draw_curve(axes, curve, [places[text_of(value)] + aside for value in curve.values], chart.joined)
        _label_values(axes, places, numbers)
        axes.set_xlabel(chart.across)
        axes.set_ylabel(chart.up)

    return draw


def _draw_curve(axes: Axes, curve: Curve, places: Sequence[float], joined: bool) -> None:
    style = "-" if joined else "none"
    axes.errorbar(
        places, curve.means, yerr=curve.halves, label=curve.label, color=curve.colour, linestyle=style,
        marker="o", markersize=3.5, linewidth=1.2, elinewidth=0.8, capsize=2,
    )  # fmt: skip


def _label_values(axes: Axes, places: Mapping[str, float], numbers: bool) -> None:
    names = sorted(places, key=lambda name: places[name])
    if not numbers:
        slanted = max(map(len, names)) * len(names) > 42  # characters that stand side by side
        turn: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        axes.set_xticks([places[name] for name in names], names, **turn)
        axes.set_xlim(-0.5, len(names) - 0.5)
        return
    numbers_there = [places[name] for name in names]
    if is_log(numbers_there):
        axes.set_xscale("log")
    kept = spaced(names, positions(numbers_there), max(APART, CHARACTER * max(map(len, names))))
    axes.set_xticks([places[name] for name in kept], kept)
    axes.set_xticks([], minor=True)


def draw_parallel(parallel: Parallel) -> Callable[[Axes], None]:
    """What puts parallel coordinates on axes: the best setting on top of the others."""
    from matplotlib.colors import LinearSegmentedColormap

    ramp = LinearSegmentedColormap.from_list("ramp", RAMP)

    def draw(axes: Axes) -> None:
        count = len(parallel.coordinates)
        lines = zip(*(each.places for each in parallel.coordinates), strict=True)
        for places, shade in zip(lines, parallel.shades, strict=True):
            width = 2.4 if shade == 1 else 1.1
            axes.plot(range(count), places, color=ramp(shade), linewidth=width, zorder=2 + 0.9 * shade)
        for place, coordinate in enumerate(parallel.coordinates):
            axes.axvline(place, color=INK, linewidth=0.7, alpha=0.5, zorder=3)
            last = place == count - 1
            for height, text in coordinate.ticks:
                axes.text(
                    place + (0.02 if last else -0.02), height, text, color=INK, fontsize=7,
                    ha="left" if last else "right", va="center", zorder=4,
                )  # fmt: skip
        axes.set_xticks(range(count), [each.heading.replace(", ", "\n") for each in parallel.coordinates])
        axes.xaxis.tick_top()
        axes.set_xlim(-0.45, count - 0.7)
        axes.set_ylim(LACKS - 0.06, 1.06)
        axes.set_yticks([])
        axes.spines[["left", "bottom"]].set_visible(False)

    return draw


def parallel_size(parallel: Parallel) -> tuple[float, float]:
    """Width and height in inches: wider with every axis."""
    return 1.2 + 1.5 * len(parallel.coordinates), 3.2
