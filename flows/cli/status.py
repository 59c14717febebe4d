"""The operator's commands: see, read, cancel, clean up and examine; what they need is imported when they run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Home, Json, coloured, print_table
from xclr.printable import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from infra.home.status import Job, JobLine, Overview, Status, SweepLine
    from xclr.sweep.layout import Cell, Ref

REDRAW_S = 2.0
FAILED_SHOWN = 4  # cells of a sweep
RUNNING_SHOWN = 6  # jobs of sweeps
STAGE_WIDTH = 30  # columns that its name keeps where a narrow terminal folds it


def status(
    watch: Annotated[bool, typer.Option("--watch", help="redraw every 2 s until Ctrl-C")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="every run, not the running and the last five, and every job")
    ] = False,
    paths: Annotated[bool, typer.Option("--paths", help="also where each job's log is")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show runs and jobs: state, where, how long, time left, progress, why one waits or failed."""
    from flows.context import home_folder
    from infra.home.status import view

    place = home_folder(home)
    if not watch:
        seen = view(place, everything=everything)
        _show_status(place, seen, as_json, everything)
        if paths and not as_json:
            _show_paths(seen)
        return
    try:
        _watch(place, everything, as_json)
    except KeyboardInterrupt:
        return


def _watch(home: Path, everything: bool, as_json: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    from infra.home.status import view

    console = Console()
    if as_json or not console.is_terminal:
        while True:
            _show_status(home, view(home, everything=everything), as_json, everything)
            sys.stdout.flush()
            time.sleep(REDRAW_S)
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update(_status_text(home, view(home, everything=everything), everything), refresh=True)
            time.sleep(REDRAW_S)


def _show_status(home: Path, seen: Overview, as_json: bool, everything: bool) -> None:
    from infra.home.status import status as facts

    if as_json:
        print(facts(seen).model_dump_json())
    else:
        print_table(_status_text(home, seen, everything))


def _show_paths(seen: Overview) -> None:
    for job in seen.jobs:
        if job.entry.log is not None:
            print(f"{job.entry.stage} ({job.number})\n  {job.entry.log}")


def _status_text(home: Path, seen: Overview, everything: bool = False) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from infra.home.status import status as facts

    if not seen.runs:
        return Text(f"no runs yet in {home}; xclr run emoji starts one")
    lines = facts(seen)
    tables: list[RenderableType] = [_run_table(lines), *_failed_runs(lines)]
    for sweep in lines.sweeps:
        whole = sweep.state == "running" or sweep.run == lines.runs[-1].run  # an earlier one has its line alone
        tables += [Text(_sweep_words(sweep)), *([_sweep_table(sweep)] if whole else []), *_failed_cells(sweep)]
    return Group(*tables, *_jobs_text(lines, seen, everything))


def _jobs_text(lines: Status, seen: Overview, everything: bool) -> Iterator[RenderableType]:
    """The jobs; of a sweep's many only those that no count of its cells tells enough of, unless all are asked for."""
    from rich.text import Text

    swept = {each.run for each in seen.runs if each.sweep is not None and not everything}
    titles = {ref.digest: _title(cell, ref) for each in seen.runs for cell in each.cells for ref in cell.stages}
    pairs = list(zip(lines.jobs, seen.jobs, strict=True))
    own = [(line, job) for line, job in pairs if line.run in swept and _is_worth(line, job.entry.digest in titles)]
    told = [(line, job) for line, job in pairs if line.run not in swept] + own[:RUNNING_SHOWN]
    if told:
        yield _job_table([line for line, _ in told], [job for _, job in told], titles)
    if len(own) > RUNNING_SHOWN:
        yield Text(f"... and {len(own) - RUNNING_SHOWN} more: xclr status --all")


def _title(cell: Cell, ref: Ref) -> str:
    """What a job of a sweep's cell is called: its stage's name does not tell all values."""
    return f"{ref.level} {cell.title}"


def _is_worth(line: JobLine, of_cell: bool) -> bool:
    """Whether a sweep's job is shown: one that runs, and one of a stage that cells share until it is done."""
    return line.state == "running" or not (of_cell or line.state == "completed")


def _sweep_words(sweep: SweepLine) -> str:
    parts = [f"{number} {state}" for state, number in sweep.by_state.items() if state != "done"]
    words = ", ".join([f"{sweep.by_state.get('done', 0)} of {sweep.cells} cells done", *parts])
    if sweep.gpu_hours is not None:
        most = f" of at most {sweep.max_gpu_hours:,g}" if sweep.max_gpu_hours is not None else ""
        words += f"; {sweep.gpu_hours:,.2f}{most} GPU-hours"
    return f"sweep {sweep.sweep}: {words}"


def _sweep_table(sweep: SweepLine) -> Table:
    from rich.table import Column, Table

    stopped = ["stopped"] if any(each.stopped for each in sweep.levels) else []
    states = ("done", "running", "waiting", "failed", *stopped, "to_come")
    table = Table("level", *(Column(each.replace("_", " "), justify="right") for each in states))
    for level in sweep.levels:
        numbers = [getattr(level, each) for each in states]
        table.add_row(level.level, *(str(number or "") for number in numbers))
    return table


def _failed_cells(sweep: SweepLine) -> Iterator[RenderableType]:
    from rich.text import Text

    for each in sweep.failed[:FAILED_SHOWN]:
        job = f" ({each.job_id})" if each.job_id else ""
        reason = each.reason.splitlines()[0] if each.reason else ""
        yield Text(f"failed: {each.cell}, {each.level}{job}: {reason}", no_wrap=True, overflow="ellipsis")
    if len(sweep.failed) > FAILED_SHOWN:
        yield Text(f"... and {len(sweep.failed) - FAILED_SHOWN} more: xclr compare --sweep {sweep.sweep}")
    if sweep.failed:
        yield Text(f"-> xclr retry {sweep.sweep} runs only these")


def _run_table(facts: Status) -> Table:
    from rich.table import Column, Table

    from infra.processes import now
    from infra.progress import ago

    width = max(len(each.run) for each in facts.runs)  # an id is there to be copied: it is never folded
    table = Table(Column("run", min_width=width, no_wrap=True), "state", "started", "jobs")
    for each in facts.runs:
        own = [job for job in facts.jobs if job.run == each.run]
        parts = [f"{sum(job.state == state for job in own)} {state}" for state in dict.fromkeys(j.state for j in own)]
        started = f"{ago((now() - each.started).total_seconds())} ago"
        table.add_row(each.run, coloured(each.state), started, ", ".join(parts))
    return table


def _failed_runs(facts: Status) -> Iterator[RenderableType]:
    from rich.text import Text

    for each in facts.runs:
        if each.reason:
            yield Text(f"failed: {each.run}: {each.reason}")


def _job_table(lines: Sequence[JobLine], jobs: Sequence[Job], titles: Mapping[str, str]) -> Table:
    from rich.markup import escape
    from rich.table import Column, Table

    from infra.processes import now
    from infra.progress import ago

    names = [titles.get(job.entry.digest, line.stage) for line, job in zip(lines, jobs, strict=True)]
    reasons, runs = any(line.reason for line in lines), len({line.run for line in lines}) > 1
    limits = any(line.remaining_s is not None or line.starts is not None for line in lines)
    last = [*(["left"] if limits else []), *(["run"] if runs else []), *(["reason"] if reasons else [])]
    stage = Column("stage", min_width=min(STAGE_WIDTH, max(map(len, names))))
    table = Table(stage, "state", "progress", "job", "node", "elapsed", *last)
    for name, line, job in zip(names, lines, jobs, strict=True):
        done = "\n".join(each for each in ("" if job.progress is None else str(job.progress), line.array) if each)
        left = "" if line.remaining_s is None or line.state == "pending" else ago(line.remaining_s)
        if line.starts is not None:
            left = f"starts in {ago(max(0.0, (line.starts - now()).total_seconds()))}"
        reason = escape(printable(line.reason))
        rest = [*([left] if limits else []), *([line.run] if runs else []), *([reason] if reasons else [])]
        where = "in the run" if job.entry.is_inline else job.number
        table.add_row(
            escape(name),
            coloured(line.state),
            done,
            where,
            line.node,
            ago(line.elapsed_s),
            *rest,
        )
    return table
