"""The command line `xclr`; imports Prefect, torch and MLflow only inside the commands that need them."""

from __future__ import annotations

import os
import signal
import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from flows.cli import graph
from flows.cli.compare import compare
from flows.cli.embed import embed
from flows.cli.export import export
from flows.cli.jobs import accounts, cancel, costs
from flows.cli.lineage import lineage
from flows.cli.logs import logs
from flows.cli.machine import doctor, serve
from flows.cli.register import register
from flows.cli.run import evaluate, plan, retry, run
from flows.cli.status import status
from flows.cli.store import gc, verify
from flows.cli.study import study
from flows.cli.sweep import sweep
from flows.cli.sync import sync
from infra.loopback import spare_loopback
from xclr.disk import output_told
from xclr.errors import XclrError

app = typer.Typer(
    help="X-CLR end to end: captions, similarity graph, pretraining, evaluation, comparison.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


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


COMMANDS = (
    run, retry, evaluate, sweep, study, plan, compare, export, register, embed, serve,
    status, logs, cancel, accounts, lineage, verify, costs, sync, gc, doctor,
)  # fmt: skip
for command in COMMANDS:
    app.command()(command)
app.add_typer(graph.app, name="graph")


def _terminated(number: int, frame: object) -> None:
    """End as Ctrl-C does, so that what was started is ended on the way out."""
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point of the console script: errors a person can mend end in two lines, not in a traceback."""
    spare_loopback(os.environ)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # PYTHONIOENCODING=ascii, names that are no UTF-8
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        with output_told():
            app()
    except XclrError as error:
        print(f"xclr: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
