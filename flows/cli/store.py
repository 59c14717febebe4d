"""The commands about what is stored: hash it again, remove it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Home, Json, print_table, say

if TYPE_CHECKING:
    from pathlib import Path

    from infra.home.gc import Item
    from xclr.artifact import Artifact


def verify(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="only what a run refers to: its id or a recipe [default: all]")
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="remove what is wrong, and what was made of it, so that it is made again")
    ] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Hash every stored file again and compare it with its manifest; exit 1 when one differs.

    What was made of a file that differs is named too, and which runs make all of it again.
    """
    say("hashing what is stored")
    from flows.context import home_folder
    from infra.home.runs import last_run
    from infra.home.stored import made_of
    from infra.home.verify import found, runs_that_make, verify

    place = home_folder(home)
    artifacts = found(place, None if run is None else last_run(place, run).digests)
    size, lines, wrong = 0, [], []
    for verdict in verify(place, artifacts):
        size += verdict.bytes
        kind, digest = verdict.artifact.kind, str(verdict.artifact.digest)
        lines.append({"kind": kind, "digest": digest, "bytes": verdict.bytes, "fault": verdict.fault})
        wrong += [verdict.artifact] * bool(verdict.fault)
        if not as_json:
            print(f"{'wrong' if verdict.fault else 'ok':<6}{kind:<16}{digest}  {verdict.fault}".rstrip(), flush=True)
    tainted = [each.artifact for each in made_of(place, [str(each.digest) for each in wrong])]
    again = runs_that_make(place, [str(each.digest) for each in (*wrong, *tainted)])
    if as_json:
        of_it = {str(each.digest): each for each in tainted}
        unseen = [of_it[digest] for digest in of_it.keys() - {line["digest"] for line in lines}]
        lines += [{"kind": each.kind, "digest": str(each.digest), "bytes": 0, "fault": ""} for each in unseen]
        print(json.dumps([line | {"made_of_wrong": line["digest"] in of_it} for line in lines], indent=1))
    else:
        for each in tainted:
            print(f"of it {each.kind:<16}{each.digest}  was made of what is wrong")
        more = f", {len(tainted)} made of it" if tainted else ""
        print_table(f"{len(artifacts)} artifacts, {size / 1e9:.2f} GB, {len(wrong)} wrong{more}")
    if wrong:
        _mend(place, [*wrong, *tainted], again, remove=remove)


def _mend(home: Path, artifacts: Sequence[Artifact], again: Sequence[str], *, remove: bool) -> None:
    """Remove artifacts, where that is asked, and say what makes them again; exit 1 unless all are gone."""
    from infra.home import stored

    left = [each for each in artifacts if not (remove and stored.remove(home, each))]
    if remove:
        print(f"{len(artifacts) - len(left)} removed", file=sys.stderr)
        for each in left:
            print(f"{each.path} is being written; see xclr status", file=sys.stderr)
    else:
        print("-> xclr verify --remove takes all of it away, to be made again", file=sys.stderr)
    for run in again:
        print(f"-> xclr retry {run} makes {'it' if remove else 'it then'} again", file=sys.stderr)
    if left:
        raise typer.Exit(1)


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
    from infra.home.gc import collect, survey

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
    from rich.markup import escape
    from rich.table import Column, Table

    if not items:
        print_table(
            "nothing to remove: a run refers to everything here (--keep N forgets all but the newest N of each recipe)"
        )
        return
    table = Table("kind", "name", Column("digest", overflow="fold"), "size", "why")
    for each in items:
        digest = each.digest if each.kind == "run" else each.digest[:8]
        table.add_row(each.kind, escape(each.name), digest, decimal(each.bytes), each.why)
    print_table(table)
    print_table(f"{len(items)} item{'s' * (len(items) != 1)}, {decimal(total)} {'would go' if dry_run else 'removed'}")
