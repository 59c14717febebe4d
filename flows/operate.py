"""The operator's commands: see, read, cancel, clean up and examine; what they need is imported when they run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal import Home, Json, show

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from infra.accounts import Accounts
    from infra.costs import CostLine
    from infra.finding import Finding
    from infra.gc import Item
    from infra.status import Job, JobLine, Status, SweepLine, View
    from xclr.sweep import Cell, Ref

app = typer.Typer()
REDRAW_S = 2.0
FOLLOW_S = 0.3
FAILED_SHOWN = 4  # cells of a sweep
RUNNING_SHOWN = 6  # jobs of sweeps
PASSING = ("http_429", "http_5xx", "dns", "timeout", "connection", "tls")  # statuses that another day may mend
COLOURS = {
    **dict.fromkeys(("completed", "ok"), "green"),
    **dict.fromkeys(("failed", "wrong", "timeout", "out_of_memory"), "red"),
    **dict.fromkeys(("cancelled", "interrupted", "gone", "stopped", "preempted", "node_fail"), "yellow"),
    **dict.fromkeys(("unseen", "unknown", "optional"), "yellow"),
    "running": "cyan",
    "pending": "blue",
}


@app.command()
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
    from infra.status import view

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

    from infra.status import view

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


def _show_status(home: Path, seen: View, as_json: bool, everything: bool) -> None:
    from infra.status import status as facts

    if as_json:
        print(facts(seen).model_dump_json())
    else:
        show(_status_text(home, seen, everything))


def _show_paths(seen: View) -> None:
    for job in seen.jobs:
        if job.entry.log is not None:
            print(f"{job.entry.stage} ({job.number})\n  {job.entry.log}")


def _status_text(home: Path, seen: View, everything: bool = False) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from infra.status import status as facts

    if not seen.runs:
        return Text(f"no runs yet in {home}; xclr run emoji starts one")
    lines = facts(seen)
    tables: list[RenderableType] = [_run_table(lines)]
    for sweep in lines.sweeps:
        whole = sweep.state == "running" or sweep.run == lines.runs[-1].run  # an earlier one has its line alone
        tables += [Text(_sweep_words(sweep)), *([_sweep_table(sweep)] if whole else []), *_failed_cells(sweep)]
    return Group(*tables, *_jobs_text(lines, seen, everything))


def _jobs_text(lines: Status, seen: View, everything: bool) -> Iterator[RenderableType]:
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

    states = ("done", "running", "waiting", "failed", "to_come")
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

    from infra.ledger import now
    from infra.progress import ago

    width = max(len(each.run) for each in facts.runs)  # an id is there to be copied: it is never folded
    table = Table(Column("run", min_width=width, no_wrap=True), "state", "started", "jobs")
    for each in facts.runs:
        own = [job for job in facts.jobs if job.run == each.run]
        parts = [f"{sum(job.state == state for job in own)} {state}" for state in dict.fromkeys(j.state for j in own)]
        started = f"{ago((now() - each.started).total_seconds())} ago"
        table.add_row(each.run, _coloured(each.state), started, ", ".join(parts))
    return table


def _job_table(lines: Sequence[JobLine], jobs: Sequence[Job], titles: Mapping[str, str]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from infra.progress import ago

    reasons, runs = any(line.reason for line in lines), len({line.run for line in lines}) > 1
    limits = any(line.remaining_s is not None for line in lines)
    last = [*(["left"] if limits else []), *(["run"] if runs else []), *(["reason"] if reasons else [])]
    table = Table("stage", "state", "progress", "job", "node", "elapsed", *last)
    for line, job in zip(lines, jobs, strict=True):
        done = "\n".join(each for each in ("" if job.progress is None else str(job.progress), line.array) if each)
        left = "" if line.remaining_s is None else ago(line.remaining_s)
        rest = [*([left] if limits else []), *([line.run] if runs else []), *([escape(line.reason)] if reasons else [])]
        where = "in the run" if job.entry.is_inline else job.number
        table.add_row(
            titles.get(job.entry.digest, line.stage),
            _coloured(line.state),
            done,
            where,
            line.node,
            ago(line.elapsed_s),
            *rest,
        )
    return table


def _coloured(state: str) -> str:
    return f"[{COLOURS[state]}]{state}"


@app.command()
def logs(
    job: Annotated[
        str, typer.Argument(metavar="JOB", help="a job's id or number (4711, 4711_3), a stage's name, or a digest")
    ],
    follow: Annotated[
        bool, typer.Option("--follow", help="wait for the job to begin, and go on until it ends")
    ] = False,
    rank: Annotated[int, typer.Option(min=0, help="of which rank")] = 0,
    lines: Annotated[int | None, typer.Option(min=0, help="only the last so many lines")] = None,
    home: Home = None,
) -> None:
    """Print the log of a job; its path goes to standard error."""
    from flows.context import home_folder
    from infra.status import find_job
    from xclr.errors import StoreError

    found = find_job(home_folder(home), job)
    if found.entry.log is None:
        print(f"{found.entry.stage} runs in the run's own process and has no log; see {found.out}", file=sys.stderr)
        return
    path = found.executor.log(found.entry, job, rank)
    print(path, file=sys.stderr)
    try:
        if follow:
            _wait_for_log(path, found)
        _print_log(path, found, follow, lines)
    except FileNotFoundError as error:
        remedy = f"it begins when the job does; see xclr status, and {path.parent}"
        raise StoreError(f"{path} is not there", remedy) from error
    except KeyboardInterrupt:
        return


def _wait_for_log(path: Path, job: Job) -> None:
    said = ""
    while not path.exists() and not _is_over(job):
        line = "the job waits" + (f": {job.seen.reason}" if job.seen and job.seen.reason else "")
        if line != said:
            print(line, file=sys.stderr, flush=True)
            said = line
        time.sleep(FOLLOW_S)
        job = _again(job)


def _print_log(path: Path, job: Job, follow: bool, lines: int | None) -> None:
    from collections import deque

    with path.open(errors="replace") as stream:
        if lines is None:
            sys.stdout.writelines(stream)
        else:
            sys.stdout.writelines(deque(stream, maxlen=lines))
        sys.stdout.flush()
        if follow:
            for text in _more(stream, job):
                print(text, end="", flush=True)


def _more(stream: Iterable[str], job: Job) -> Iterator[str]:
    """What is written from now on, until the job has ended and all is read."""
    while True:
        over = _is_over(_again(job))
        yield from stream
        if over:
            return
        time.sleep(FOLLOW_S)


def _again(job: Job) -> Job:
    """The same job as it stands now."""
    from infra.ledger import Book
    from infra.status import job_of

    attempts = Book(job.out.parents[2]).attempts(job.entry.digest)
    return next((job_of(each, job.out) for each in attempts if each.attempt == job.entry.attempt), job)


def _is_over(job: Job) -> bool:
    from infra.ledger import LIVE

    return job.state not in LIVE


@app.command()
def cancel(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a run's id, or a recipe's name for its running run")],
    home: Home = None,
    as_json: Json = False,
) -> None:
    """End a run and its jobs, but for jobs that other runs wait for."""
    from flows.context import home_folder
    from infra.cancel import cancel_run, find_run

    place = home_folder(home)
    done = cancel_run(place, find_run(place, run))
    if as_json:
        ended, left = ([{"stage": each.stage, "job_id": each.job} for each in some] for some in (done.ended, done.left))
        print(json.dumps({"run": done.run, "ended": ended, "left": left}))
        return
    names = "".join(f"\n  {each.stage}" for each in done.ended)
    print(f"{done.run}: {len(done.ended)} job{'s' * (len(done.ended) != 1)} ended{names}")
    for each in done.left:
        print(f"{each.stage} goes on: another run waits for it", file=sys.stderr)


@app.command()
def accounts(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="a run's id or a recipe [default: the last]")
    ] = None,
    shards: Annotated[bool, typer.Option("--shards", help="also a line for every shard of the captions")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show what became of a run's pictures: rows by status, in all and by shard."""
    from flows.context import home_folder
    from infra.accounts import accounts as facts
    from infra.costs import last_run

    place = home_folder(home)
    found = facts(place, last_run(place, run))
    if as_json:
        print(found.model_dump_json(indent=1))
        return
    _show_accounts(found)
    if shards:
        _show_shards(found)


def _show_accounts(found: Accounts) -> None:
    from rich.table import Column, Table

    table = Table("status", Column("pictures", justify="right"), Column("share", justify="right"))
    for status, rows in found.statuses.items():
        table.add_row(status, f"{rows:,}", f"{rows / found.rows:.1%}")
    table.add_row("all", f"{found.rows:,}", "", style="bold")
    show(table)
    tries = ", ".join(f"{rows:,} after {number}" for number, rows in found.tries.items())
    show(f"generation {found.generation} of the pictures of {found.run}; tries: {tries}")
    if again := [each for each in found.statuses if each in PASSING]:
        show(f"[dim]-> xclr retry {found.run} --status {','.join(again)} fetches these again and no others")


def _show_shards(found: Accounts) -> None:
    from rich.table import Column, Table

    statuses = list(found.statuses)
    table = Table("shard", *(Column(each, justify="right") for each in statuses))
    lines: dict[int, dict[str, int]] = {}
    for each in found.shards:
        lines.setdefault(each.shard, {})[each.status] = each.rows
    for shard, counts in lines.items():
        table.add_row(str(shard), *(f"{counts.get(each, 0):,}" for each in statuses))
    show(table)


@app.command()
def verify(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="only what a run refers to: its id or a recipe [default: all]")
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Hash every stored file again and compare it with its manifest; exit 1 when one differs."""
    from flows.context import home_folder
    from infra.costs import last_run
    from infra.verify import found, verify

    place = home_folder(home)
    artifacts = found(place, None if run is None else last_run(place, run).digests)
    faults, size, lines = 0, 0, []
    for verdict in verify(place, artifacts):
        faults, size = faults + bool(verdict.fault), size + verdict.bytes
        kind, digest = verdict.artifact.kind, str(verdict.artifact.digest)
        lines.append({"kind": kind, "digest": digest, "bytes": verdict.bytes, "fault": verdict.fault})
        if not as_json:
            print(f"{'wrong' if verdict.fault else 'ok':<6}{kind:<16}{digest}  {verdict.fault}".rstrip(), flush=True)
    if as_json:
        print(json.dumps(lines, indent=1))
    else:
        show(f"{len(artifacts)} artifacts, {size / 1e9:.2f} GB, {faults} wrong")
    if faults:
        print("-> remove the folder of what is wrong and run its recipe again", file=sys.stderr)
        raise typer.Exit(1)


@app.command()
def costs(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="a run's id or a recipe [default: the last]")
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show what a run's jobs used, by stage and method: GPU-hours, and how much of the cores' time was computed."""
    from flows.context import home_folder
    from infra.costs import costs_of, last_run

    place = home_folder(home)
    lines = costs_of(place, last_run(place, run))
    if as_json:
        print(json.dumps([each.model_dump() for each in lines], indent=1))
        return
    _show_costs(lines)


def _show_costs(lines: Sequence[CostLine]) -> None:
    from rich.table import Table

    if not lines:
        show("no job of this run used a GPU or was counted by Slurm")
        return
    table = Table("stage", "method", "jobs", "GPU-hours", "core-hours", "cores busy")
    for each in lines:
        busy = "" if each.cpu_efficiency is None else f"{each.cpu_efficiency:.0%}"
        table.add_row(each.stage, each.method, str(each.jobs), f"{each.gpu_hours:.3f}", f"{each.cpu_hours:.3f}", busy)
    total = sum(each.gpu_hours for each in lines), sum(each.cpu_hours for each in lines)
    table.add_row("all", "", str(sum(each.jobs for each in lines)), f"{total[0]:.3f}", f"{total[1]:.3f}", "")
    show(table)


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would go")] = False,
    keep: Annotated[
        int | None, typer.Option(min=0, help="keep the newest N runs of each recipe [default: all]")
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="also what ended attempts left for kept runs to resume from")
    ] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Remove artifacts that no run refers to; everything that a kept or running run needs stays."""
    from flows.context import home_folder
    from infra.gc import collect, survey

    place = home_folder(home)
    plan = survey(place, keep, unfinished=unfinished)
    items = list(plan.items if dry_run else collect(place, plan))
    total = sum(each.bytes for each in items)
    if as_json:
        rows = [each.model_dump() for each in items]
        print(json.dumps({"dry_run": dry_run, "bytes": total, "removed": rows}, indent=1))
        return
    _show_items(items, total, dry_run)


def _show_items(items: Sequence[Item], total: int, dry_run: bool) -> None:
    from rich.filesize import decimal
    from rich.table import Column, Table

    if not items:
        show(
            "nothing to remove: a run refers to everything here (--keep N forgets all but the newest N of each recipe)"
        )
        return
    table = Table("kind", "name", Column("digest", overflow="fold"), "size", "why")
    for each in items:
        digest = each.digest if each.kind == "run" else each.digest[:8]
        table.add_row(each.kind, each.name, digest, decimal(each.bytes), each.why)
    show(table)
    show(f"{len(items)} item{'s' * (len(items) != 1)}, {decimal(total)} {'would go' if dry_run else 'removed'}")


@app.command()
def doctor(
    gpu: Annotated[
        bool, typer.Option("--gpu", help="only the GPUs: gathering between them, and a minute's speed")
    ] = False,
    seconds: Annotated[float, typer.Option(min=1, help="how long --gpu trains")] = 60,
    cluster: Annotated[
        str | None, typer.Option(help="only a cluster file: ask Slurm whether it would take each stage's job")
    ] = None,
    datasets: Annotated[
        bool, typer.Option("--datasets", help="only the evaluation data sets: layouts, and where to obtain them")
    ] = False,
    recipe: Annotated[
        str | None, typer.Option(help="whose evaluate.roots --datasets looks at: a named recipe or a YAML file")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="override a key: --set evaluate.roots.imagenet=/data/imagenet")
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Say what this machine has and lacks, and how to mend it; exit 1 when something needed is wrong."""
    from flows.context import home_folder, state_folder
    from infra.cluster import load_cluster
    from infra.datasets import check_datasets
    from infra.doctor import examine, examine_cluster, examine_gpus
    from xclr.evaluation.stages import roots
    from xclr.recipe import load_recipe

    place = home_folder(home)
    findings = []
    if datasets:
        found = roots(load_recipe(recipe or "cc12m", sets or ()))
        examined = check_datasets({str(name): root for name, root in found.items()})
    elif cluster is not None:
        examined = examine_cluster(load_cluster(cluster), place)
    else:
        examined = examine_gpus(seconds) if gpu else examine(place, state_folder(place))
    for finding in examined:
        findings.append(finding)
        if not as_json:
            _show_finding(finding)
    if as_json:
        print(json.dumps([each.model_dump() for each in findings], indent=1))
    if any(each.state == "wrong" for each in findings):
        raise typer.Exit(1)


def _show_finding(finding: Finding) -> None:
    from rich.markup import escape
    from rich.table import Table

    line = Table.grid(padding=(0, 1))
    for width in (8, 16, None):  # what does not fit is folded below itself
        line.add_column(width=width, overflow="fold")
    line.add_row(_coloured(finding.state), finding.check, escape(finding.found))
    if finding.remedy:
        line.add_row("", "", f"[dim]-> {escape(finding.remedy)}")
    show(line)
