"""What the commands share: options, and tables that fit a terminal or a pipe."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from xclr.recipe import Recipe

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="a named recipe (emoji, smoke) or a YAML file")]
ClusterName = Annotated[
    str | None, typer.Option(help="where to run: local, or a cluster file [default: XCLR_CLUSTER, else local]")
]
Sets = Annotated[list[str] | None, typer.Option("--set", help="override a key: --set train.epochs=2")]
COLOURS = {
    **dict.fromkeys(("completed", "ok"), "green"),
    **dict.fromkeys(("failed", "wrong", "timeout", "out_of_memory"), "red"),
    **dict.fromkeys(("cancelled", "interrupted", "gone", "stopped", "preempted", "node_fail", "node_fault"), "yellow"),
    **dict.fromkeys(("unseen", "unknown", "optional"), "yellow"),
    "running": "cyan",
    "pending": "blue",
}


def _tidy_afterwards(context: typer.Context, home: str | None) -> str | None:
    """Say of a disk that it takes nothing more, and see afterwards to what killed runs and an absent MLflow left."""
    from flows.context import give_home, home_folder, state_folder
    from xclr.disk import told

    place = home_folder(home)
    give_home(state_folder(place))
    context.with_resource(told(place, state_folder(place)))
    context.call_on_close(lambda: _tidy(home))
    return home


def _tidy(home: str | None) -> None:
    from flows.context import home_folder, state_folder

    place = home_folder(home)
    state = state_folder(place)
    if not os.access(state, os.W_OK):
        return
    if any(state.glob("servers/*.json")):  # else nothing needs to be imported
        from infra import servers

        servers.end_left_behind(state)
    if any(state.glob("untracked/*")):
        from flows.context import tell_mlflow

        tell_mlflow(place, over=True)


HOME_HELP = "where artifacts, ledger and logs live [default: XCLR_HOME or ./.xclr]"
Home = Annotated[str | None, typer.Option(help=HOME_HELP, callback=_tidy_afterwards)]
Json = Annotated[bool, typer.Option("--json", help="print facts as JSON")]


def resolved(recipe: Recipe, home: Path) -> Recipe:
    """The recipe with what it leaves open resolved; says what was chosen."""
    from xclr.resolved import resolve

    found = resolve(recipe, home)
    if found.line:
        print(found.line, file=sys.stderr)
    return found.recipe


def say(what: str) -> None:
    """Tell whoever waits at a terminal what the command begins with; it may take seconds."""
    if sys.stderr.isatty():
        print(f"{what} ...", file=sys.stderr, flush=True)


def print_table(what: RenderableType) -> None:
    """Print to standard output."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a pipe has no width to fold lines at
        console = Console(width=200)
    console.print(what, highlight=False)


def coloured(state: str) -> str:
    """A state in its colour."""
    return f"[{COLOURS[state]}]{state}"
