"""The command that tells MLflow what runs could not."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import HOME_HELP, Json
from xclr.errors import JobError

if TYPE_CHECKING:
    from pathlib import Path

    from infra.catch_up import Told
    from infra.home.runs import RunRecord


def sync(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="a run's id, or a recipe's or sweep's name [default: all]")
    ] = None,
    home: Annotated[str | None, typer.Option(help=HOME_HELP)] = None,
    as_json: Json = False,
) -> None:
    """Tell MLflow what runs could not: stages, points of curves, how trainings ended; what it knows is left as it is.

    So metrics come to an MLflow that was away, or to another one that MLFLOW_TRACKING_URI names now. Runs that go on
    tell it themselves. Exit 1 when MLflow does not answer, or not all of a run can be told.
    """
    from flows.context import home_folder

    place = home_folder(home)
    told: list[Told] = []
    try:
        _tell(place, _over(place, run), told)
    finally:  # what was told before MLflow went away
        _show(told, as_json)
    if any(each.fault for each in told):
        raise typer.Exit(1)


def _over(home: Path, name: str | None) -> list[RunRecord]:
    """The runs of that name that are over, oldest first; says which go on."""
    from infra.home.runs import read_runs, shown_state
    from xclr.record import records_named

    named = records_named(home, read_runs(home), name)
    running = [each for each in named if shown_state(each) == "running"]
    for each in running:
        print(f"{each.run} runs, and tells MLflow itself", file=sys.stderr)
    return [each for each in named if each not in running]


def _tell(home: Path, records: Sequence[RunRecord], told: list[Told]) -> None:
    from mlflow import MlflowException
    from rich.console import Console
    from rich.progress import track

    from flows.context import reach_mlflow, state_folder
    from infra.catch_up import catch_up
    from infra.servers import artifacts_of
    from infra.tracking.patient import first_line

    state, console = state_folder(home), Console(stderr=True)
    telling, number = catch_up(home, reach_mlflow(state), artifacts_of(state), records), len(records)
    quiet = not console.is_terminal
    try:
        told.extend(track(telling, "telling MLflow", number, console=console, transient=True, disable=quiet))
    except (MlflowException, OSError) as error:
        remedy = "xclr sync goes on where it stopped, once MLflow answers"
        raise JobError(f"MLflow could not be told all: {first_line(error)[:200]}", remedy) from error


def _show(told: Sequence[Told], as_json: bool) -> None:
    if as_json:
        print(json.dumps([each._asdict() for each in told], indent=1))
        return
    for each in told:
        parts = [f"{each.stages} stages"] * bool(each.stages) + [f"{each.points:,} points"] * bool(each.points)
        goes_on = ", its jobs go on" if each.goes_on else ""
        print(f"{each.run}: {' and '.join(parts) or 'nothing new'}{goes_on}")
        if each.fault:
            print(f"{each.run}: not all could be told: {each.fault}", file=sys.stderr)
    stages, points = sum(each.stages for each in told), sum(each.points for each in told)
    print(f"{len(told)} run{'s' * (len(told) != 1)}: {stages} stages and {points:,} points told")
