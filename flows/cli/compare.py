"""The command `xclr compare`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Home, Json, say
from flows.cli.show import print_scores, show_page, show_sweep
from xclr.errors import StoreError


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
        Path | None, typer.Option(help="file or folder for the page [default: HOME/pages/compare-<run>.html]")
    ] = None,
) -> None:
    """Show the scores of runs, method by suite, and write a page with them, training curves and nearest neighbours."""
    say("reading the scores")
    from flows.context import home_folder
    from infra.home.scores import find_runs, read_scores
    from xclr.report.paper import check_alone, load_paper, paper_view
    from xclr.report.tables import answers_of, view_of
    from xclr.store import Store

    place = home_folder(home)
    if sweep is not None:
        if runs or against or paper:
            raise StoreError("--sweep shows one sweep by itself", "leave out RUN, --against and --paper")
        _compare_sweep(place, sweep, suite, as_json, out)
        return
    check_alone(paper, against, suite)
    records = find_runs(place, runs or [])
    scores = read_scores(place, [each.run for each in records])
    answers = answers_of(records, Store(place)) if against or paper else {}
    view = paper_view(scores, answers, load_paper()) if paper else view_of(scores, answers, against, suite)
    if as_json:
        print(json.dumps(view.rows, indent=1))
        print(*view.notes, sep="\n", end="\n" * bool(view.notes), file=sys.stderr)
    else:
        print_scores(scores, view)
    if out is not None or not as_json:
        show_page(place, records, runs or [], scores, against, out)


def _compare_sweep(home: Path, name: str, suite: str | None, as_json: bool, out: Path | None) -> None:
    from infra.home.sweeps import find_sweep
    from infra.home.swept import read_swept
    from xclr.report.sweep import rows_of

    record = find_sweep(home, name)
    if as_json:
        print(json.dumps(rows_of(read_swept(home, record)), indent=1))
    if out is not None or not as_json:
        show_sweep(home, record, suite, out)
