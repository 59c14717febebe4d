"""What the commands show of scores: tables, and pages."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.options import print_table

if TYPE_CHECKING:
    from pyarrow import Table as Scores

    from infra.home.runs import RunRecord
    from xclr.report.tables import ScoreTables


def show_sweep(home: Path, record: RunRecord, suite: str | None = None, out: Path | None = None) -> None:
    """Print the tables of a sweep's run and write its page."""
    from rich.text import Text

    from flows.context import state_folder
    from infra.home.swept import read_swept
    from xclr.report.html import keep_fonts
    from xclr.report.sweep import best_of, failures_of, grids_of_sweep
    from xclr.report.sweep_page import write_sweep_page

    swept = read_swept(home, record)
    for grid in grids_of_sweep(swept, suite):
        print_table(grid)
    for line in (*([str(best)] if (best := best_of(swept)) else []), *failures_of(swept)):
        print_table(Text(line))
    keep_fonts(state_folder(home) / "matplotlib")
    print(f"page        {write_sweep_page(home, swept, out)}", file=sys.stderr)


def print_scores(scores: Scores, view: ScoreTables | None = None, left_out: Mapping[str, str] | None = None) -> None:
    """Print tables of scores, or why there are none; `left_out` says of suites why they are."""
    from xclr.report.tables import NO_SCORES, view_of

    if not scores.num_rows:
        why = "; ".join(f"{suite} is left out: {reason}" for suite, reason in (left_out or {}).items())
        print(f"No suite judged this run: {why}" if why else NO_SCORES, file=sys.stderr)
        return
    for grid in (view or view_of(scores, {})).grids:
        print_table(grid)


def tell_page(home: Path, record: RunRecord) -> None:
    """Say where the page is that a run wrote."""
    from infra.home.runs import page_of

    if (page := page_of(home, record)) is not None:
        print(f"page        {page}", file=sys.stderr)


def show_page(
    home: Path,
    runs: Sequence[RunRecord],
    names: Sequence[str],
    scores: Scores,
    against: str | None = None,
    out: Path | None = None,
) -> None:
    """Write the page of runs, by the names they were asked for, and say where it is."""
    from flows.context import state_folder
    from xclr.report.html import keep_fonts
    from xclr.report.page import write_page

    keep_fonts(state_folder(home) / "matplotlib")
    print(f"page        {write_page(home, runs, names, scores, against, out)}", file=sys.stderr)
