"""The commands about a run's jobs: end them, count what became of pictures, what they cost."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Home, Json, print_table, say

if TYPE_CHECKING:
    from infra.home.costs import CostLine
    from infra.home.pictures import Accounts

PASSING = ("http_429", "http_5xx", "dns", "timeout", "connection", "tls")  # statuses that another day may mend


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


def accounts(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="a run's id or a recipe [default: the last]")
    ] = None,
    shards: Annotated[bool, typer.Option("--shards", help="also a line for every shard of the captions")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show what became of a run's pictures: rows by status, in all and by shard."""
    say("counting the pictures")
    from flows.context import home_folder
    from infra.home.pictures import accounts as facts
    from infra.home.runs import last_run

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
    print_table(table)
    tries = ", ".join(f"{rows:,} after {number}" for number, rows in found.tries.items())
    print_table(f"generation {found.generation} of the pictures of {found.run}; tries: {tries}")
    if again := [each for each in found.statuses if each in PASSING]:
        print_table(f"[dim]-> xclr retry {found.run} --status {','.join(again)} fetches these again and no others")


def _show_shards(found: Accounts) -> None:
    from rich.table import Column, Table

    statuses = list(found.statuses)
    table = Table("shard", *(Column(each, justify="right") for each in statuses))
    lines: dict[int, dict[str, int]] = {}
    for each in found.shards:
        lines.setdefault(each.shard, {})[each.status] = each.rows
    for shard, counts in lines.items():
        table.add_row(str(shard), *(f"{counts.get(each, 0):,}" for each in statuses))
    print_table(table)


def costs(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="a run's id or a recipe [default: the last]")
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show what a run's jobs used, by stage and method: GPU-hours, and how much of the cores' time was computed."""
    from flows.context import home_folder
    from infra.home.costs import costs_of
    from infra.home.runs import last_run

    place = home_folder(home)
    lines = costs_of(place, last_run(place, run))
    if as_json:
        print(json.dumps([each.model_dump() for each in lines], indent=1))
        return
    _show_costs(lines)


def _show_costs(lines: Sequence[CostLine]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from infra.home.costs import suggestions

    if not lines:
        print_table("no job of this run used a GPU or was counted by Slurm")
        return
    counted = any(each.memory_gb is not None for each in lines)
    memory = ["GiB used", "asked"] if counted else []
    table = Table("stage", "method", "jobs", "GPU-hours", "core-hours", "cores busy", *memory)
    for each in lines:
        busy = "" if each.cpu_efficiency is None else f"{each.cpu_efficiency:.0%}"
        room = [f"{gb:.1f}" if gb is not None else "" for gb in (each.memory_gb, each.memory_asked_gb)]
        hours = f"{each.gpu_hours:.3f}", f"{each.cpu_hours:.3f}"
        names = escape(each.stage), escape(each.method)
        table.add_row(*names, str(each.jobs), *hours, busy, *(room if counted else []))
    total = sum(each.gpu_hours for each in lines), sum(each.cpu_hours for each in lines)
    table.add_row("all", "", str(sum(each.jobs for each in lines)), f"{total[0]:.3f}", f"{total[1]:.3f}", "")
    print_table(table)
    for kind, gb in suggestions(lines).items():
        print_table(f"[dim]-> stages.{kind}.memory_gb: {gb} in the cluster file would fit what was used")
