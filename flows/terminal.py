"""What the commands share: options, and tables that fit a terminal or a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

Home = Annotated[str | None, typer.Option(help="where artifacts, ledger and logs live [default: XCLR_HOME or ./.xclr]")]
Json = Annotated[bool, typer.Option("--json", help="print facts as JSON")]


def show(what: RenderableType) -> None:
    """Print to standard output."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a pipe has no width to fold lines at
        console = Console(width=200)
    console.print(what, highlight=False)
