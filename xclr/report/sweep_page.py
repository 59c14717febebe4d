"""A sweep as one HTML file that needs nothing else, and its plots as PNG files for MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from xclr.evaluation.stages import tell_skipped
from xclr.recipe import dump_yaml, load_recipe, recipe_names, recipe_yaml
from xclr.report import html
from xclr.report.html import environment
from xclr.report.page import GLOSSARY, facts_of, file_name, write_html
from xclr.report.sheet import SIDE
from xclr.report.sweep import (
    NOT_JUDGED,
    Setting,
    Swept,
    best_of,
    first_line,
    grids_of_sweep,
    hours,
    judged_by,
    settings_of,
    state_counts,
    total_core_hours,
    total_gpu_hours,
    value_text,
)
from xclr.report.sweep_plots import (
    Chart,
    Parallel,
    charts_of,
    draw_chart,
    draw_parallel,
    few_shot_charts,
    parallel_of,
    parallel_size,
)
from xclr.report.tables import percent
from xclr.sweep.cells import CellLine
from xclr.sweep.load import load_sweep, sweep_names
from xclr.sweep.spec import Draw, Sweep, short, text_of

WIDE = (4.2, 2.6)  # inches of a plot that stands beside one or two others
OPEN = 30  # settings whose cells are shown without a click
FIELDS: Mapping[str, tuple[str, ...]] = {  # of a recipe, behind each fact about it
    "data": ("data.",),
    "epochs": ("train.epochs",),
    "training": ("train.batch_size", "train.image_size"),
    "backbone": ("train.backbone", "train.width"),
}


def write_sweep_page(home: Path, swept: Swept, out: Path | None) -> Path:
    """Write the page of a sweep; returns its path.

    It is sweep-<name>-<when>.html in HOME/pages, as its run is called, which sweep-<name>.html leads to, or that file
    in `out` where it is a folder, else the file `out`. Raises StoreError when the file cannot be written.
    """
    own, called = (f"sweep-{file_name([each.removeprefix('sweep-')])}" for each in (swept.record.run, swept.sweep.name))
    return write_html(home / "pages" / own, called, render_sweep(swept), out)


def render_sweep(swept: Swept) -> str:
    """The page as HTML."""
    sweep, best, settings = swept.sweep, best_of(swept), settings_of(swept)
    charts = {axis: charts_of(swept, axis) for axis in sweep.axes}
    few, parallel = few_shot_charts(swept), parallel_of(swept)
    judge = judged_by(swept)
    again = reproduction(sweep)
    return environment().get_template("sweep.html.j2").render(
        name=sweep.name,
        state=swept.record.state,
        facts=_facts(swept),
        axes=[(axis, *_axis(sweep, axis)) for axis in sweep.axes],
        skipped=tell_skipped(sweep.recipe),
        best=None if best is None else str(best),
        not_judged=NOT_JUDGED,
        grids=grids_of_sweep(swept),
        glossary=GLOSSARY,
        charts=[(short(axis), own, _drawn(own, axis)) for axis, own in charts.items() if own],
        few=list(zip(few, _drawn(few, "few-shot"), strict=True)),
        parallel=None if parallel is None else _parallel(parallel),
        parallel_axes=0 if parallel is None else len(parallel.coordinates),
        judge=None if judge is None else judge.heading,
        states=state_counts(swept),
        seeds=list(dict.fromkeys(line.cell.seed for line in swept.lines)),
        cells=[_cells(swept, each) for each in settings],
        open=len(settings) <= OPEN,
        failed=[_failed(each) for each in swept.lines if each.state in {"failed", "stopped"}],
        command=again[0],
        files=again[1],
        side=SIDE,
    )  # fmt: skip


def pictures(swept: Swept) -> dict[str, bytes]:
    """PNG files by name: the score that judges against each axis, few-shot curves, parallel coordinates."""
    made = {}
    for axis in swept.sweep.axes:
        for chart in charts_of(swept, axis)[:1]:
            made[f"curve-{short(axis)}.png"] = _png(swept, chart)
    for place, chart in enumerate(few_shot_charts(swept)):
        made[f"few-shot{f'-{place}' if place else ''}.png"] = _png(swept, chart)
    parallel = parallel_of(swept)
    if parallel is not None:
        title = f"{swept.sweep.name}: every setting"
        made["parallel-coordinates.png"] = html.picture(title, draw_parallel(parallel), parallel_size(parallel))
    return made


def _png(swept: Swept, chart: Chart) -> bytes:
    height = WIDE[1] + 0.14 * ((len(chart.legend) + 1) // 2)  # for the legend, two names a line
    return html.picture(_title(swept.sweep.name, chart), draw_chart(chart), (WIDE[0], height))


def _title(what: str, chart: Chart) -> str:
    return f"{what}: {chart.title} against {chart.across}"


def _drawn(charts: list[Chart], salt: str) -> list[Markup]:
    return [
        html.plot(_title(short(salt), each), f"{salt} {place}", draw_chart(each), WIDE)
        for place, each in enumerate(charts)
    ]


def _parallel(parallel: Parallel) -> Markup:
    title = "every setting over " + "; ".join(each.heading for each in parallel.coordinates)
    return html.plot(title, "parallel", draw_parallel(parallel), parallel_size(parallel))


def _facts(swept: Swept) -> dict[str, str]:
    """What was swept and how it went, for people; what an axis changes is told to be swept."""
    record, facts = swept.record, facts_of(swept.sweep.recipe)
    for fact, fields in FIELDS.items():
        if any(axis.startswith(fields) for axis in swept.sweep.axes):
            facts[fact] = "swept"
    used = {"GPU-hours": total_gpu_hours(swept), "core-hours": total_core_hours(swept)}
    ended = {} if record.ended is None else {"ended": f"{record.ended:%Y-%m-%d %H:%M} UTC"}
    methods = ", ".join(dict.fromkeys(each.name for each in swept.sweep.recipe.objectives))
    recipe = {"run": record.run, "recipe": swept.sweep.recipe.name, "objectives": methods}
    counted = {name: hours(number) for name, number in used.items() if number}
    return recipe | facts | {"started": f"{record.started:%Y-%m-%d %H:%M} UTC"} | ended | counted


def _axis(sweep: Sweep, axis: str) -> tuple[str, str]:
    """The values of an axis, and how they go with those of the others."""
    if axis in sweep.grid:
        return ", ".join(map(text_of, sweep.grid[axis])), "every combination"
    if axis in sweep.lists:
        return ", ".join(map(text_of, sweep.lists[axis])), "one after another"
    drawn, times = sweep.random[axis], f"drawn {sweep.samples} times"
    if isinstance(drawn, Draw):
        return f"{drawn.low:g} to {drawn.high:g}", times + " over the logarithm" * drawn.log
    return ", ".join(map(text_of, drawn)), times


def _cells(swept: Swept, setting: Setting) -> dict[str, Any]:
    """The cells of a setting by seed: state, and what more is to be said."""
    return {
        "label": setting.label,
        "value": value_text(swept.sweep, setting.values),
        "cells": {line.cell.seed: (line.state, _said(swept, setting, line)) for line in setting.lines},
    }


def _said(swept: Swept, setting: Setting, line: CellLine) -> str:
    judge = judged_by(swept)
    score = None if judge is None else setting.seeds.get(judge.key, {}).get(line.cell.seed)
    return " · ".join([*([percent(score)] if score is not None else []), *([line.level] if line.level else [])])


def _failed(line: CellLine) -> tuple[str, ...]:
    return line.cell.title, line.level, first_line(line.reason), line.job or "-"


def reproduction(sweep: Sweep) -> tuple[str, list[tuple[str, str]]]:
    """The command that runs a sweep again, and the files that it needs, by name: none for the project's own."""
    if sweep.name in sweep_names() and load_sweep(sweep.name, {}) == sweep:
        return f"xclr sweep {sweep.name}", []
    recipe, given = sweep.recipe, sweep.model_dump(mode="json", exclude_defaults=True, exclude={"name", "recipe"})
    command = f"xclr sweep {sweep.name}.yaml"
    if recipe.name in recipe_names() and load_recipe(recipe.name, [f"seeds={list(recipe.seeds)}"]) == recipe:
        named = {"name": sweep.name, "recipe": recipe.name, "seeds": list(recipe.seeds)}
        return command, [(f"{sweep.name}.yaml", dump_yaml(named | given))]
    beside = f"{recipe.name}.yaml" if recipe.name != sweep.name else f"{recipe.name}-recipe.yaml"
    named = {"name": sweep.name, "recipe": beside}
    return command, [(f"{sweep.name}.yaml", dump_yaml(named | given)), (beside, recipe_yaml(recipe))]
