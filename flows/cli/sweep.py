"""The command `xclr sweep`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.execute import Choices, execute_sweep
from flows.cli.options import ClusterName, Home, Json, Sets, print_table, resolved, say

if TYPE_CHECKING:
    from rich.table import Table

    from infra.plan import PlannedLevel
    from xclr.sweep.layout import SweepPlan
    from xclr.sweep.spec import Sweep

CELLS_SHOWN = 40  # of a planned sweep, by name


def sweep(
    what: Annotated[str, typer.Argument(metavar="RECIPE", help="a recipe, or a sweep of this project or in a file")],
    grid: Annotated[
        list[str] | None, typer.Option(help="values of a field; every combination is a point: --grid train.epochs=6,12")
    ] = None,
    lists: Annotated[
        list[str] | None, typer.Option("--list", help="values of a field that go with those of the other --list")
    ] = None,
    random: Annotated[
        list[str] | None, typer.Option(help="a range to draw from: --random train.learning_rate=log:0.0001..0.1")
    ] = None,
    *,
    samples: Annotated[int | None, typer.Option(help="how often --random is drawn [default: 8]")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="how many seeds each point has, from 0 on")] = None,
    by: Annotated[str | None, typer.Option(help="the suite that names the best [default: the recipe's first]")] = None,
    name: Annotated[str | None, typer.Option(help="of the sweep [default: recipe and fields]")] = None,
    max_gpu_hours: Annotated[float | None, typer.Option(help="refuse a plan that may take more")] = None,
    parallel: Annotated[int | None, typer.Option(min=1, help="jobs at once [default: of the cluster file]")] = None,
    stop_weak: Annotated[
        bool, typer.Option("--stop-weak", help="end trainings early that are not among the better half (halving)")
    ] = False,
    sets: Sets = None,
    cluster: ClusterName = None,
    home: Home = None,
    only_plan: Annotated[bool, typer.Option("--plan", help="show what would run, and touch nothing")] = False,
    as_json: Json = False,
) -> None:
    """Train and judge a recipe at many values of its fields; cells that are there already are found.

    Run again with more values it runs the new ones only. Cells that failed or were stopped as weak stay so: xclr retry
    NAME tries them again, to their end.
    """
    say("planning the sweep")
    from flows.context import cluster_name
    from xclr.sweep.load import load_sweep, parse_draw, parse_values

    given = {
        "grid": dict(parse_values("--grid", each) for each in grid or ()),
        "lists": dict(parse_values("--list", each) for each in lists or ()),
        "random": dict(map(parse_draw, random or ())),
        "samples": samples,
        "seeds": range(seeds) if seeds else None,
        "by": by,
        "name": name,
        "max_gpu_hours": max_gpu_hours,
        "parallel": parallel,
        "stop_weak": stop_weak or None,
    }
    loaded = load_sweep(what, {key: value for key, value in given.items() if value not in (None, {})}, sets or ())
    choices = Choices(cluster_name(cluster), home, mode="cached")
    if only_plan:
        _plan_sweep(loaded, choices, as_json)
    else:
        execute_sweep(loaded, choices)


def _plan_sweep(sweep: Sweep, choices: Choices, as_json: bool) -> None:
    from rich.text import Text

    from flows.context import home_folder
    from infra.cluster import load_cluster
    from infra.plan import check_budget, plan_sweep
    from xclr.captions.source import placed
    from xclr.store import Store
    from xclr.sweep.layout import layout

    place = home_folder(choices.home)
    there = sweep.model_copy(update={"recipe": placed(resolved(sweep.recipe, place), place)})
    swept = layout(there, Store(place))
    levels = plan_sweep(swept, Store(place), load_cluster(choices.cluster))
    if as_json:
        print(json.dumps([each.model_dump() for each in levels], indent=1))
    else:
        print_table(_levels_table(swept, levels))
        for cell in swept.cells if len(swept.cells) <= CELLS_SHOWN else ():
            print_table(Text(cell.title, "dim"))
    check_budget(swept, levels)


def _levels_table(swept: SweepPlan, levels: Sequence[PlannedLevel]) -> Table:
    from rich.table import Column, Table

    paid = any(each.gpu_hours for each in levels)
    right = [Column(each, justify="right") for each in ("there", "running", "to make", "arrays", "at once")]
    title = f"sweep {swept.sweep.name}: {len(swept.cells)} cells"
    table = Table("level", *right, *(["GPU-hours, at most"] if paid else []), title=title, title_justify="left")
    for each in levels:
        submitted = [str(each.arrays), str(each.at_once)] if each.arrays else ["", ""]
        hours = [f"{each.gpu_hours:,.0f}" if each.gpu_hours else ""] if paid else []
        table.add_row(
            each.level, *(str(number or "") for number in (each.hit, each.running, each.miss)), *submitted, *hours
        )
    total = [sum(getattr(each, part) for each in levels) for part in ("hit", "running", "miss", "arrays")]
    hours = [f"{sum(each.gpu_hours for each in levels):,.0f}"] if paid else []
    table.add_row("all", *(str(number or "") for number in total), "", *hours, style="bold")
    return table
