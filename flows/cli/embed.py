"""The command `xclr embed`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Home, Json, say

if TYPE_CHECKING:
    import torch

    from xclr.evaluation.vectors import Written
    from xclr.stage import Progress


def embed(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="a run's id, or a recipe's name for its last run that completed")
    ],
    pictures: Annotated[
        str, typer.Argument(metavar="PICTURES", help="a folder of pictures or of tars, a tar, a table, or a picture")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="the Parquet file of vectors to write")],
    method: Annotated[str, typer.Option(help="whose network it is")] = "xclr",
    seed: Annotated[int | None, typer.Option(help="of the training [default: the recipe's first]")] = None,
    graph: Annotated[str | None, typer.Option(help="of the training [default: the recipe's first]")] = None,
    *,
    image_column: Annotated[
        str | None, typer.Option(help="where a table has its pictures: bytes, or paths from the table [default: image]")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="a table's own names, as a column of the output")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto, a GPU where there is one")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="replace a file that holds something else")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write what a trained network makes of any pictures: a Parquet file with a vector for each.

    Killed and run again, it goes on where it was. Pictures that cannot be read are named and left out; `row` counts
    them, so that what is missing shows.
    """
    say("loading the network")
    from flows.context import home_folder
    from xclr.evaluation.vectors import write_vectors
    from xclr.images.listing import list_pictures
    from xclr.opened import run_of

    place = home_folder(home)
    opened = run_of(place, run)
    network, chosen = opened.network(method, seed, graph), _device(device)
    listed = list_pictures(pictures, image_column, id_column)
    with _bar() as progress:
        written = write_vectors(
            lambda: network.open(chosen), listed, out, opened.about(network), force=force, progress=progress
        )
    _tell(written, as_json=as_json)


def _device(name: str) -> torch.device | None:
    """The device of that name, None for what is best; raises RecipeError for one that is not there."""
    import torch

    from xclr.errors import RecipeError

    if name == "auto":
        return None
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # what a torch without CUDA raises
        raise RecipeError(f"--device {name} is not there", "--device cpu, or auto") from error


@contextmanager
def _bar() -> Iterator[Progress]:
    """Progress as a bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("pictures"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("", total=None)
        yield lambda done, total, ok=None: bars.update(bar, completed=done, total=total)


def _tell(written: Written, *, as_json: bool) -> None:
    if written.unreadable:
        more = ", ..." if written.unreadable > len(written.named) else ""
        print(
            f"left out    {written.unreadable} that cannot be read: {', '.join(written.named)}{more}", file=sys.stderr
        )
    facts = {"rows": written.rows, "unreadable": written.unreadable, "dim": written.dim, "out": str(written.out)}
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        print(f"vectors     {written.out} ({written.rows:,} of {written.dim} numbers)")
