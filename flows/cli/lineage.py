"""The command `xclr lineage`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Home, Json

if TYPE_CHECKING:
    from infra.home.lineage import Traced


def lineage(
    metric: Annotated[
        str,
        typer.Argument(metavar="METRIC", help="a score, as MLflow or a table names it: eval/imagenet/top1, few-shot"),
    ],
    run: Annotated[
        str | None, typer.Option(help="of which run: its id, or a recipe or sweep [default: the last]")
    ] = None,
    method: Annotated[str | None, typer.Option(help="of which method [default: the last of the table]")] = None,
    seed: Annotated[int | None, typer.Option(help="of which seed [default: the first]")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show what a score was made of, back to the caption file; exit 1 when any of it is missing or has changed."""
    from flows.context import home_folder
    from infra.home.lineage import Wanted, trace_score

    traced = trace_score(home_folder(home), Wanted(metric, method, seed), run)
    if as_json:
        chain = [each.model_dump() for each in traced.links.values()]
        print(json.dumps({"run": traced.run.run, "score": traced.row, "chain": chain}, indent=1))
    else:
        _show(traced)
    if not _is_whole(traced):
        raise typer.Exit(1)


def _is_whole(traced: Traced) -> bool:
    """Whether nothing is missing or has changed; says what is, and what to do."""
    from infra.lineage import changes_of, damage_of

    damage, changes = damage_of(traced.links), changes_of(traced.links)
    if damage:
        print(*damage, "  -> xclr verify --remove, then", sep="\n", end=" ", file=sys.stderr)
        print(f"xclr retry {traced.run.run}, make it again", file=sys.stderr)
    if changes:
        print(
            *changes, "  -> put back what was read: of other files a run makes other outputs", sep="\n", file=sys.stderr
        )
    return not (damage or changes)


def _show(traced: Traced) -> None:
    from infra.home.lineage import metric_of, title_of
    from infra.lineage import lines_of
    from xclr.report.tables import percent

    row = traced.row
    value = f"{percent(row['value'], row['ci95'])} % ({row['n']:,} items)"
    print(f"{metric_of(row)} of {title_of(row)}: {value}", f"run {traced.run.run}", sep="\n")
    print(*lines_of(traced.links, [next(iter(traced.links))]), sep="\n")
    if traced.others:
        others = dict.fromkeys(title_of(each) for each in traced.others)
        print("others, by --method and --seed:", *others, sep="\n  ", file=sys.stderr)
