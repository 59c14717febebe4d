"""The commands about a run's similarity graph; what they need is imported when they run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Home, Json, print_table, say

if TYPE_CHECKING:
    from xclr.artifact import Artifact
    from xclr.stage import Kind, Plan

app = typer.Typer(no_args_is_help=True, help="Look at the similarity graph: its page, and what is near a text.")
RunName = Annotated[str | None, typer.Argument(metavar="[RUN]", help="a run's id or a recipe [default: the last]")]


@app.command(name="show")
def page(
    run: RunName = None,
    out: Annotated[
        Path | None, typer.Option(help="file or folder for the page [default: HOME/pages/graph-<run>.html]")
    ] = None,
    browse: Annotated[bool, typer.Option("--open/--no-open", help="open it in the browser")] = True,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Open the page about a run's graph: distributions, components, near-duplicates, pictures with near captions."""
    import webbrowser

    from flows.context import home_folder
    from infra.home.runs import last_run
    from xclr.errors import StoreError
    from xclr.graph.stages import GRAPH, GRAPH_REPORT

    place = home_folder(home)
    record = last_run(place, run)
    plan = _plan_data(place, run)
    made = _made(plan, GRAPH_REPORT)
    name = f"graph-{record.run}.html"
    path = place / "pages" / name if out is None else out.absolute() / name if out.is_dir() else out.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made.path / "graph.html", path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}", "name another place: --out FILE") from error
    if as_json:
        facts = plan.store.manifest(_made(plan, GRAPH)).stats | plan.store.manifest(made).stats
        print(json.dumps({"run": record.run, "page": str(path), **facts}, indent=1))
        return
    print(f"page        {path}")
    if browse and sys.stdout.isatty():
        webbrowser.open(path.as_uri())


@app.command()
def neighbours(
    text: Annotated[str, typer.Argument(metavar="TEXT", help='any words, such as "a red apple"')],
    run: Annotated[str | None, typer.Option(help="a run's id or a recipe [default: the last]")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="how many captions")] = 10,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show the captions of a run that are nearest to a text, by the model that embedded them."""
    say("loading the text model")
    from flows.context import home_folder
    from xclr.captions.stages import CAPTIONS
    from xclr.captions.text import shortened
    from xclr.graph import open_encoder
    from xclr.graph.query import nearest_captions
    from xclr.graph.stages import EMBEDDINGS

    plan = _plan_data(home_folder(home), run)
    captions, embeddings = _made(plan, CAPTIONS), _made(plan, EMBEDDINGS)
    plan.store.check(captions)
    plan.store.check(embeddings)
    config = plan.of(EMBEDDINGS)[-1].config
    encoder = open_encoder(config.model, config.precision)
    found = nearest_captions(text, captions.path, embeddings.path, encoder, k)
    if as_json:
        print(json.dumps([each._asdict() for each in found], indent=1, ensure_ascii=False))
        return
    from rich.markup import escape
    from rich.table import Column, Table

    table = Table(Column("cosine", justify="right"), Column("row_id", justify="right"), "caption")
    for each in found:
        table.add_row(f"{each.similarity:.3f}", str(each.row_id), escape(shortened(each.caption)))
    print_table(table)


def _plan_data(home: Path, run: str | None) -> Plan:
    """The data stages of a run."""
    from infra.home.runs import last_run
    from xclr.captions.source import placed
    from xclr.pipeline import add_data
    from xclr.stage import Plan
    from xclr.store import Store

    plan = Plan(placed(last_run(home, run).recipe, home), Store(home))
    add_data(plan)
    return plan


def _made(plan: Plan, kind: Kind) -> Artifact:
    """The newest output of a kind; raises StoreError when it is not there."""
    from xclr.errors import StoreError

    stage = plan.of(kind)[-1]
    found = plan.store.find(stage.digest)
    if found is None:
        raise StoreError(f"{stage.name} is not in {plan.store.home}", f"xclr retry {plan.recipe.name} --until graph")
    return found
