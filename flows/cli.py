"""The command line `xclr`; imports Prefect, torch and MLflow only inside the commands that need them."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from flows import graph, operate
from flows.terminal import Home, Json
from flows.terminal import show as _print
from xclr.errors import JobError, StoreError, XclrError

if TYPE_CHECKING:
    from pyarrow import Table as Scores
    from rich.table import Table

    from flows.compare import View
    from infra.plan import PlannedLevel, PlannedStage
    from infra.runs import RunRecord
    from xclr.recipe import Recipe
    from xclr.sweep import Layout, Sweep

app = typer.Typer(
    help="X-CLR end to end: captions, similarity graph, pretraining, evaluation, comparison.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="a named recipe (emoji, smoke) or a YAML file")]
ClusterName = Annotated[
    str | None, typer.Option(help="where to run: local, or a cluster file [default: XCLR_CLUSTER, else local]")
]
Until = Annotated[str, typer.Option(help="stop after: captions, images, embeddings, graph, pretrain, evaluate")]
CELLS_SHOWN = 40  # of a planned sweep, by name
Sets = Annotated[list[str] | None, typer.Option("--set", help="override a key: --set train.epochs=2")]


def _version(wanted: bool) -> None:
    if wanted:
        from xclr import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command()
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
    from flows.context import cluster_name
    from xclr.recipe import load_recipe

    _execute(load_recipe(recipe, sets or ()), Choices(cluster_name(cluster), home, mode, until))


class Choices(NamedTuple):
    """How a recipe is run; `flow` is full, or evaluate for what judges checkpoints that are there."""

    cluster: str
    home: str | None
    mode: str = "retry"
    until: str = "compare"
    flow: str = "full"


def _execute(recipe: Recipe, choices: Choices) -> None:
    """Check what can be checked at once, run the flow, and show what came of it."""
    from flows.compare import read_scores
    from flows.context import check_choices, home_folder
    from infra.runs import read_runs
    from xclr.datafiles import placed
    from xclr.pipeline import pipeline
    from xclr.store import Store

    check_choices(choices.mode, choices.until)
    place = home_folder(choices.home)
    _check_place(place, choices.cluster)
    planned = placed(recipe, place)
    if planned.data.path is not None or planned.data.source == "emoji":
        pipeline(planned, Store(place))  # what cannot be planned fails here, before any server starts
    failure = _attempt(recipe, choices._replace(home=str(place)))
    scored = choices.until == "compare" and (failure is None or read_runs(place)[-1].scores is not None)
    scores = read_scores(place, []) if scored else None
    if scores is not None:
        _print_scores(scores)
    if failure is None:
        _say_where(place, recipe.name)
    if scores is not None:
        _write_page(place, [], scores)
    if failure is not None:
        raise failure


def _check_place(home: Path, cluster: str) -> None:
    """Raise XclrError when a cluster file is wrong, or nothing can be written to HOME."""
    from infra.cluster import load_cluster
    from xclr.store import Store

    load_cluster(cluster)
    Store(home).check_writable()


def _attempt(what: Recipe | Sweep, choices: Choices) -> XclrError | None:
    """Run a flow where it can run; what made it fail, since what finished is shown all the same."""
    from flows.context import prefect_server, state_folder, tracking_uri
    from infra.servers import check_mlflow

    state = state_folder(Path(str(choices.home)))
    check_mlflow(tracking_uri(state))
    with prefect_server(state):
        try:
            _run_flow(what, choices)
        except XclrError as error:
            return error
    return None


@app.command()
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
    from flows.context import home_folder
    from infra.accounts import try_again
    from infra.costs import last_run

    record = last_run(home_folder(home), run)
    if status is not None:
        wanted = [each.strip() for each in status.split(",") if each.strip()]
        print(try_again(home_folder(home), record, wanted), file=sys.stderr)
    if record.sweep is not None:
        _execute_sweep(record.sweep, Choices(cluster or record.cluster, home))
        return
    _execute(record.recipe, Choices(cluster or record.cluster, home, until=until))


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run's id, or a recipe's name for its last run")],
    suite: Annotated[list[str] | None, typer.Option(help="a suite to add: --suite objectnet; may stand often")] = None,
    sets: Sets = None,
    cluster: ClusterName = None,
    home: Home = None,
) -> None:
    """Judge the checkpoints of an earlier run by further suites; nothing is trained, what is judged already is found.

    Where data sets lie is set as in a recipe: --set evaluate.roots.objectnet=/data/objectnet-1.0
    """
    from flows.context import home_folder
    from infra.costs import last_run
    from xclr.recipe import with_overrides

    record = last_run(home_folder(home), run)
    if record.sweep is not None:
        remedy = "run the sweep again with --set evaluate.suites=[...]: it trains nothing anew"
        raise StoreError(f"{run} is a sweep, whose cells are judged by its recipe's suites", remedy)
    suites = list(dict.fromkeys([*record.recipe.evaluate.suites, *(suite or [])]))
    recipe = with_overrides(record.recipe, [f"evaluate.suites={json.dumps(suites)}", *(sets or ())])
    _execute(recipe, Choices(cluster or record.cluster, home, flow="evaluate"))


def _run_flow(what: Recipe | Sweep, choices: Choices) -> None:
    from prefect.logging.handlers import APILogHandler

    from flows.evaluate import evaluate as judge
    from flows.full import full
    from flows.interrupt import stopping_on_ctrl_c
    from flows.sweep import sweep
    from xclr.sweep import Sweep

    where: dict[str, Any] = {"cluster": choices.cluster, "home": choices.home}
    try:
        with stopping_on_ctrl_c():
            if isinstance(what, Sweep):
                sweep(what, **where, mode=choices.mode)
            elif choices.flow == "evaluate":
                judge(what, **where)
            else:
                full(what, **where, mode=choices.mode, until=choices.until)
    finally:
        APILogHandler().flush()  # while the server is still up


def _say_where(home: Path, recipe: str) -> None:
    from flows.context import state_folder
    from infra import servers

    state = state_folder(home)
    print(f"\nartifacts   {home / 'artifacts'}", file=sys.stderr)
    if mlflow := servers.find(servers.MLFLOW, state):
        print(f"mlflow      {servers.experiments(mlflow.url).get(recipe, mlflow.url)}", file=sys.stderr)
    if prefect := servers.find(servers.PREFECT, state):
        print(f"prefect     {prefect.url}/runs", file=sys.stderr)
    if mlflow is None:
        flag = "" if home == Path(".xclr").absolute() else f" --home {home}"
        print(f"the UIs     {sys.argv[0]} serve{flag}    (MLflow: metrics and curves, Prefect: runs)", file=sys.stderr)


@app.command()
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
    sets: Sets = None,
    cluster: ClusterName = None,
    home: Home = None,
    only_plan: Annotated[bool, typer.Option("--plan", help="show what would run, and touch nothing")] = False,
    as_json: Json = False,
) -> None:
    """Train and judge a recipe at many values of its fields; cells that are there already are found.

    Run again with more values it runs the new ones only. Cells that failed stay so: xclr retry NAME tries them again.
    """
    from flows.context import cluster_name
    from xclr.sweep import load_sweep, parse_draw, parse_values

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
    }
    loaded = load_sweep(what, {key: value for key, value in given.items() if value not in (None, {})}, sets or ())
    choices = Choices(cluster_name(cluster), home, mode="cached")
    if only_plan:
        _plan_sweep(loaded, choices, as_json)
    else:
        _execute_sweep(loaded, choices)


def _plan_sweep(sweep: Sweep, choices: Choices, as_json: bool) -> None:
    from rich.text import Text

    from flows.context import home_folder
    from infra.cluster import load_cluster
    from infra.plan import check_budget, plan_sweep
    from xclr.datafiles import placed
    from xclr.store import Store
    from xclr.sweep import layout

    place = home_folder(choices.home)
    there = sweep.model_copy(update={"recipe": placed(sweep.recipe, place)})
    swept = layout(there, Store(place))
    levels = plan_sweep(swept, Store(place), load_cluster(choices.cluster))
    if as_json:
        print(json.dumps([each.model_dump() for each in levels], indent=1))
    else:
        _print(_levels_table(swept, levels))
        for cell in swept.cells if len(swept.cells) <= CELLS_SHOWN else ():
            _print(Text(cell.title, "dim"))
    check_budget(swept, levels)


def _levels_table(swept: Layout, levels: Sequence[PlannedLevel]) -> Table:
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


def _execute_sweep(sweep: Sweep, choices: Choices) -> None:
    """Refuse what cannot be or costs too much, run the flow, and show what came of the cells."""
    from flows.context import home_folder
    from infra.cluster import load_cluster
    from infra.plan import check_budget, plan_sweep
    from infra.sweeps import find_sweep
    from xclr.datafiles import placed
    from xclr.store import Store
    from xclr.sweep import layout

    place = home_folder(choices.home)
    _check_place(place, choices.cluster)
    planned = placed(sweep.recipe, place)
    if planned.data.path is not None or planned.data.source == "emoji":
        swept = layout(sweep.model_copy(update={"recipe": planned}), Store(place))
        check_budget(swept, plan_sweep(swept, Store(place), load_cluster(choices.cluster)))
    failure = _attempt(sweep, choices._replace(home=str(place)))
    if failure is None or isinstance(failure, JobError):
        _show_sweep(place, find_sweep(place, sweep.name))
        _say_where(place, sweep.recipe.name)
    if failure is not None:
        raise failure


def _show_sweep(home: Path, record: RunRecord, suite: str | None = None, out: Path | None = None) -> None:
    from rich.text import Text

    from flows.context import state_folder
    from flows.sweep_page import write_sweep_page
    from flows.swept import best_of, failures_of, grids_of_sweep, read_swept
    from xclr.pages import keep_fonts

    swept = read_swept(home, record)
    for grid in grids_of_sweep(swept, suite):
        _print(grid)
    for line in (*([str(best)] if (best := best_of(swept)) else []), *failures_of(swept)):
        _print(Text(line))
    keep_fonts(state_folder(home) / "matplotlib")
    print(f"page        {write_sweep_page(home, swept, out)}", file=sys.stderr)


@app.command()
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
    from infra.plan import plan as planned
    from xclr.datafiles import placed
    from xclr.evaluation.stages import tell_skipped
    from xclr.graph.estimate import compare_methods
    from xclr.graph.stages import GRAPH
    from xclr.pipeline import pipeline
    from xclr.recipe import load_recipe
    from xclr.store import Store

    loaded = placed(load_recipe(recipe, sets or ()), home_folder(home))
    store = Store(home_folder(home))
    rows = planned(loaded, store, load_cluster(cluster_name(cluster)))
    if as_json:
        print(json.dumps([row.model_dump() for row in rows], indent=1))
        return
    for line in tell_skipped(loaded):
        print(line, file=sys.stderr)
    _print(_plan_table(rows))
    (graph,) = pipeline(loaded, store).of(GRAPH)
    if costs := compare_methods(graph, store, loaded):
        _print(f"[dim]{costs} (graph.method; docs/graph.md)")


def _plan_table(rows: Sequence[PlannedStage]) -> Table:
    from rich.filesize import decimal
    from rich.table import Table

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
        table.add_row(row.stage, f"[{colour}]{row.state}", str(row.rows or ""), size, *hours, *costs, row.digest[:8])
    return table


def _costs(row: PlannedStage) -> list[str]:
    return [f"{row.core_hours:,.3g}", f"{row.memory_gb:,.1f}"]


@app.command()
def compare(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="runs or recipes; default: the last run")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="show distances to a method, seed by seed: --against clip")
    ] = None,
    *,
    suite: Annotated[str | None, typer.Option(help="show all scores of one suite: --suite few-shot")] = None,
    sweep: Annotated[str | None, typer.Option(help="show the cells of a sweep: --sweep temperature")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="show the scores beside those of the X-CLR paper")] = False,
    home: Home = None,
    as_json: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="file or folder for the page [default: HOME/pages/compare-<names>.html]")
    ] = None,
) -> None:
    """Show the scores of runs, method by suite, and write a page with them, training curves and nearest neighbours."""
    from flows.compare import answers_of, find_runs, read_scores, view_of
    from flows.context import home_folder
    from flows.paper import check_alone, load_paper, paper_view
    from xclr.store import Store

    place = home_folder(home)
    if sweep is not None:
        if runs or against or paper:
            raise StoreError("--sweep shows one sweep by itself", "leave out RUN, --against and --paper")
        _compare_sweep(place, sweep, suite, as_json, out)
        return
    check_alone(paper, against, suite)
    scores = read_scores(place, runs or [])
    answers = answers_of(find_runs(place, runs or []), Store(place)) if against or paper else {}
    view = paper_view(scores, answers, load_paper()) if paper else view_of(scores, answers, against, suite)
    if as_json:
        print(json.dumps(view.rows, indent=1))
        print(*view.notes, sep="\n", end="\n" * bool(view.notes), file=sys.stderr)
    else:
        _print_scores(scores, view)
    if out is not None or not as_json:
        _write_page(place, runs or [], scores, against, out)


def _compare_sweep(home: Path, name: str, suite: str | None, as_json: bool, out: Path | None) -> None:
    from flows.swept import read_swept, rows_of
    from infra.sweeps import find_sweep

    record = find_sweep(home, name)
    if as_json:
        print(json.dumps(rows_of(read_swept(home, record)), indent=1))
    if out is not None or not as_json:
        _show_sweep(home, record, suite, out)


def _print_scores(scores: Scores, view: View | None = None) -> None:
    from flows.compare import NO_SCORES, view_of

    if not scores.num_rows:
        print(NO_SCORES, file=sys.stderr)
        return
    for grid in (view or view_of(scores, {})).grids:
        _print(grid)


def _write_page(
    home: Path, runs: Sequence[str], scores: Scores, against: str | None = None, out: Path | None = None
) -> None:
    from flows.context import state_folder
    from flows.page import write_page
    from xclr.pages import keep_fonts

    keep_fonts(state_folder(home) / "matplotlib")
    print(f"page        {write_page(home, runs, scores, against, out)}", file=sys.stderr)


@app.command()
def serve(
    home: Home = None,
    prefect_port: Annotated[int, typer.Option(help="of the Prefect UI")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="of the MLflow UI")] = 5000,
) -> None:
    """Start the Prefect and MLflow servers on loopback and keep them up until Ctrl-C."""
    from flows.context import home_folder, state_folder
    from infra import servers

    place = home_folder(home)
    state = state_folder(place)
    for each in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell starts background programs without it
        signal.signal(each, signal.default_int_handler)
    with (
        servers.using(servers.PREFECT, state, prefect_port) as prefect,
        servers.using(servers.MLFLOW, state, mlflow_port) as mlflow,
    ):
        try:
            _say_served(place, prefect, mlflow)
            signal.pause()
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr)


def _say_served(home: Path, prefect: str, mlflow: str) -> None:
    from infra import servers

    print(f"Prefect  {prefect}\nMLflow   {mlflow}", flush=True)
    for name, page in servers.experiments(mlflow).items():
        print(f"  {name:<7}{page}")
    print("\nFor Prefect's own commands, in another terminal:")
    print(f"  export PREFECT_API_URL={prefect}/api XCLR_HOME={home}\n\nCtrl-C stops both.", flush=True)


app.add_typer(operate.app)  # status, logs, cancel, gc, doctor
app.add_typer(graph.app, name="graph")


def main() -> None:
    """Entry point of the console script: errors a person can mend end in two lines, not in a traceback."""
    try:
        app()
    except XclrError as error:
        print(f"xclr: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
