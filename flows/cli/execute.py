"""A recipe or a sweep made to run: what can be checked at once, the flow, and what came of it."""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flows.cli.options import resolved, say
from flows.cli.show import print_scores, show_sweep, tell_page
from xclr.errors import JobError, XclrError

if TYPE_CHECKING:
    from collections.abc import Container

    from infra.home.runs import RunRecord
    from xclr.recipe import Recipe
    from xclr.stage import Step
    from xclr.sweep.spec import Sweep


class Choices(NamedTuple):
    """How a recipe is run; `flow` is full, or evaluate for what judges checkpoints that are there."""

    cluster: str
    home: str | None
    mode: str = "retry"
    until: str = "compare"
    flow: str = "full"


def execute(recipe: Recipe, choices: Choices) -> None:
    """Check what can be checked at once, run the flow, and show what came of it; the recipe is planned once."""
    from xclr.pipeline import planned_once

    with planned_once():
        _execute(recipe, choices)


def _execute(recipe: Recipe, choices: Choices) -> None:
    from flows.context import home_folder
    from infra.home.runs import run_of_this_process
    from infra.home.scores import read_scores
    from infra.plan import check_data, lack_of_room
    from infra.servers import UnreachableError
    from xclr.captions.source import placed
    from xclr.evaluation.stages import lacks
    from xclr.pipeline import pipeline
    from xclr.store import Store

    place = home_folder(choices.home)
    _check_place(place, choices.cluster)
    recipe = resolved(recipe, place)
    planned = placed(recipe, place)
    if planned.data.is_located:
        plan = pipeline(planned, Store(place))  # what cannot be planned fails here, before any server starts
        if (line := lack_of_room(plan)) is not None:
            print(line, file=sys.stderr)
        check_data(plan, _steps(choices))
    failure = _attempt(recipe, choices._replace(home=str(place)))
    own = run_of_this_process(place)
    if own is not None and isinstance(failure, UnreachableError) and _is_made(planned, place, choices, own):
        print(f"{failure.message}; all that was asked for is made", file=sys.stderr)
        failure = None
    scores = read_scores(place, [own.run]) if own is not None and own.scores is not None else None
    if scores is not None:
        print_scores(scores, left_out=lacks(planned))
    if failure is None:
        _say_where(place, recipe.name)
    if own is not None and scores is not None:
        tell_page(place, own)
    if failure is not None:
        raise failure


def _steps(choices: Choices) -> Container[Step]:
    """The steps that a run takes."""
    from xclr.stage import STEPS

    return {"evaluate"} if choices.flow == "evaluate" else STEPS[: [*map(str, STEPS)].index(choices.until) + 1]


def _is_made(recipe: Recipe, home: Path, choices: Choices, run: RunRecord) -> bool:
    """True when all that was asked of a run is there."""
    from xclr.pipeline import pipeline
    from xclr.store import Store

    if not recipe.data.is_located or (choices.until == "compare" and run.scores is None):
        return False
    store, steps = Store(home), _steps(choices)
    return all(store.find(stage.digest) for stage in pipeline(recipe, store) if stage.kind.step in steps)


def _check_place(home: Path, cluster: str) -> None:
    """Raise XclrError when a cluster file is wrong or of another machine, or HOME takes nothing."""
    from flows.context import check_places
    from infra.cluster import load_cluster

    load_cluster(cluster).check_here()
    check_places(home)


def _attempt(what: Recipe | Sweep, choices: Choices) -> XclrError | None:
    """Run a flow where it can run; what made it fail, since what finished is shown all the same."""
    import httpx

    from flows.context import prefect_server, reach_mlflow, state_folder
    from infra.servers import AWAY, UnreachableError

    state = state_folder(Path(str(choices.home)))
    with suppress(*AWAY):  # the run says so, and goes on
        reach_mlflow(state)
    say("starting Prefect")
    with prefect_server(state):
        try:
            _run_flow(what, choices)
        except XclrError as error:
            return error
        except httpx.TransportError as error:
            remedy = "run it again, with a server that is up: what is done is found, and jobs go on"
            return UnreachableError(f"Prefect's server was lost: {error}", remedy)
    return None


def _run_flow(what: Recipe | Sweep, choices: Choices) -> None:
    from prefect.logging.handlers import APILogHandler

    from flows.cli.interrupt import stopping_on_ctrl_c
    from flows.evaluate import evaluate as judge
    from flows.full import full
    from flows.sweep import sweep
    from xclr.sweep.spec import Sweep

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
    from flows.context import home_folder, state_folder
    from infra import servers
    from infra.access import auth_string
    from infra.tracking.links import Pages

    state = state_folder(home)
    print(f"\nartifacts   {home / 'artifacts'}", file=sys.stderr)
    if mlflow := servers.find(servers.MLFLOW, state):
        pages = servers.experiments(mlflow.url, auth_string(state)).get(recipe, Pages(mlflow.url, None, None))
        for what, page in (("mlflow", pages.runs), ("  scores", pages.view), ("  compare", pages.compare)):
            if page is not None:
                print(f"{what:<12}{page}", file=sys.stderr)
    if prefect := servers.find(servers.PREFECT, state):
        print(f"prefect     {prefect.url}/runs", file=sys.stderr)
    if mlflow is None:
        flag = "" if home == home_folder(None) else f" --home {home}"
        program = "xclr" if shutil.which("xclr") else sys.argv[0]
        print(f"the UIs     {program} serve{flag}", file=sys.stderr)


def execute_sweep(sweep: Sweep, choices: Choices) -> None:
    """Refuse what cannot be or costs too much, run the flow, and show what came of the cells; all is planned once."""
    from xclr.pipeline import planned_once

    with planned_once():
        _execute_sweep(sweep, choices)


def _execute_sweep(sweep: Sweep, choices: Choices) -> None:
    from flows.context import home_folder
    from infra.cluster import load_cluster
    from infra.home.runs import run_of_this_process
    from infra.plan import check_budget, plan_sweep
    from xclr.captions.source import placed
    from xclr.store import Store
    from xclr.sweep.layout import layout

    place = home_folder(choices.home)
    _check_place(place, choices.cluster)
    sweep = sweep.model_copy(update={"recipe": resolved(sweep.recipe, place)})
    planned = placed(sweep.recipe, place)
    if planned.data.is_located:
        swept = layout(sweep.model_copy(update={"recipe": planned}), Store(place))
        check_budget(swept, plan_sweep(swept, Store(place), load_cluster(choices.cluster)))
    failure = _attempt(sweep, choices._replace(home=str(place)))
    own = run_of_this_process(place)
    if own is not None and (failure is None or isinstance(failure, JobError)):
        show_sweep(place, own)
        _say_where(place, sweep.recipe.name)
    if failure is not None:
        raise failure
