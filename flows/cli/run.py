"""The commands that run a recipe, or say what a run would do."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from flows.cli.execute import Choices, execute, execute_sweep
from flows.cli.options import ClusterName, Home, Json, RecipeName, Sets, print_table, resolved, say
from xclr.errors import DataError, RecipeError, StoreError

if TYPE_CHECKING:
    from rich.table import Table

    from infra.plan import PlannedStage

Until = Annotated[str, typer.Option(help="stop after: captions, images, embeddings, graph, pretrain, evaluate")]


def check_choices(mode: str, until: str) -> None:
    """Raise RecipeError for a mode or a stage that there is not."""
    from infra.mode import Mode
    from xclr.stage import STEPS

    for flag, value, choices in (("--mode", mode, get_args(Mode)), ("--until", until, STEPS)):
        if value not in choices:
            raise RecipeError(f"{flag} {value}: no such choice", "choose " + ", ".join(choices))


def run(
    recipe: RecipeName,
    sets: Sets = None,
    until: Until = "compare",
    cluster: ClusterName = None,
    home: Home = None,
    mode: Annotated[
        str, typer.Option(help="retry, cached (earlier failures stand), force (make again), read-only")
    ] = "retry",
) -> None:
    """Run a recipe: every stage, with progress, and a table at the end."""
    check_choices(mode, until)
    say("starting the run")
    from flows.context import cluster_name
    from xclr.recipe import load_recipe

    execute(load_recipe(recipe, sets or ()), Choices(cluster_name(cluster), home, mode, until))


def retry(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run's id, or a recipe's name for its last run")],
    status: Annotated[
        str | None,
        typer.Option(
            help="also obtain pictures of these statuses again, such as http_5xx,timeout,dns; see xclr accounts"
        ),
    ] = None,
    until: Until = "compare",
    cluster: ClusterName = None,
    home: Home = None,
) -> None:
    """Run the recipe or sweep of an earlier run again, where it ran: what is done is found, what failed tried again.

    With --status the pictures become the next generation: only the lost ones of these statuses are fetched, and what
    reads pictures is made anew.
    """
    check_choices("retry", until)
    say("starting the run")
    from flows.context import home_folder
    from infra.home.pictures import try_again
    from infra.home.runs import last_run

    record = last_run(home_folder(home), run)
    if status is not None:
        wanted = [each.strip() for each in status.split(",") if each.strip()]
        print(try_again(home_folder(home), record, wanted), file=sys.stderr)
    if record.sweep is not None:
        whole = record.sweep.model_copy(update={"stop_weak": False})
        execute_sweep(whole, Choices(cluster or record.cluster, home))
        return
    execute(record.recipe, Choices(cluster or record.cluster, home, until=until))


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run's id, or a recipe's name for its last run")],
    suite: Annotated[list[str] | None, typer.Option(help="a suite to add: --suite objectnet; may stand often")] = None,
    on: Annotated[
        str | None,
        typer.Option(metavar="RECIPE", help="judge on the pictures of another recipe, which were never trained on"),
    ] = None,
    sets: Sets = None,
    cluster: ClusterName = None,
    home: Home = None,
) -> None:
    """Judge the checkpoints of an earlier run by further suites; nothing is trained, what is judged already is found.

    Where data sets lie is set as in a recipe: --set evaluate.roots.objectnet=/data/objectnet-1.0
    With --on other pictures are judged, by the suites for own pictures; the scores are those of a run of its own.
    """
    say("starting the run")
    from flows.context import home_folder
    from infra.home.runs import last_run
    from xclr.evaluation.stages import check_suites
    from xclr.recipe import load_recipe, with_overrides

    record = last_run(home_folder(home), run)
    if record.sweep is not None:
        remedy = "run the sweep again with --set evaluate.suites=[...]: it trains nothing anew"
        raise StoreError(f"{run} is a sweep, whose cells are judged by its recipe's suites", remedy)
    judged = record.recipe if on is None else record.recipe.on(load_recipe(on))
    suites = list(dict.fromkeys([*judged.evaluate.suites, *(suite or [])]))
    recipe = with_overrides(judged, [f"evaluate.suites={json.dumps(suites)}", *(sets or ())])
    check_suites(recipe, suite or ())
    execute(recipe, Choices(cluster or record.cluster, home, flow="evaluate"))


def plan(
    recipe: RecipeName,
    sets: Sets = None,
    cluster: ClusterName = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show every stage: hit, miss or running; touches nothing."""
    from flows.context import cluster_name, home_folder
    from infra.cluster import load_cluster
    from infra.plan import lack_of_room
    from infra.plan import plan as planned
    from xclr.captions.source import placed
    from xclr.captions.stages import tell_choices
    from xclr.evaluation.stages import tell_skipped
    from xclr.graph.estimate import compare_methods
    from xclr.graph.stages import GRAPH
    from xclr.pipeline import pipeline
    from xclr.recipe import load_recipe
    from xclr.store import Store

    place = home_folder(home)
    loaded = placed(resolved(load_recipe(recipe, sets or ()), place), place)
    if not loaded.data.is_located:
        run = ["xclr", "run", recipe, *(each for key in sets or () for each in ("--set", key)), "--until", "captions"]
        raise DataError(f"the table of {loaded.data.source} has not been fetched yet", shlex.join(run))
    store = Store(place)
    rows = planned(loaded, store, load_cluster(cluster_name(cluster)))
    if as_json:
        print(json.dumps([row.model_dump() for row in rows], indent=1))
        return
    for line in tell_choices(loaded) + tell_skipped(loaded):
        print(line, file=sys.stderr)
    print_table(_plan_table(rows))
    for row in rows:
        for why in row.refusals:
            print(f"a run would end after {row.stage}: {why}", file=sys.stderr)
    if (lack := lack_of_room(pipeline(loaded, store))) is not None:
        print(lack, file=sys.stderr)
    (graph,) = pipeline(loaded, store).of(GRAPH)
    if costs := compare_methods(graph, store, loaded):
        print_table(f"[dim]{costs} (graph.method; docs/graph.md)")


def _plan_table(rows: Sequence[PlannedStage]) -> Table:
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    paid = any(row.gpu_hours for row in rows)
    limit = ["GPU-hours, at most"] if paid else []
    known = any(row.core_hours is not None for row in rows)
    estimates = ["core-hours, about", "GiB, about"] if known else []
    table = Table("stage", "state", "rows", "size", *limit, *estimates, "digest", title_justify="left")
    for row in rows:
        colour = {"hit": "green", "miss": "yellow", "running": "cyan"}[row.state]
        size = "" if row.bytes is None else decimal(row.bytes)
        hours = [f"{row.gpu_hours:,.0f}" if row.gpu_hours else ""] if paid else []
        costs = [] if not known else ["", ""] if row.core_hours is None else _costs(row)
        table.add_row(
            Text(row.stage), f"[{colour}]{row.state}", str(row.rows or ""), size, *hours, *costs, row.digest[:8]
        )
    return table


def _costs(row: PlannedStage) -> list[str]:
    return [f"{row.core_hours:,.3g}", f"{row.memory_gb:,.1f}"]
