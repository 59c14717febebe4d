"""The command `xclr study`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.execute import Choices, execute
from flows.cli.options import ClusterName, Home, Json, print_table, resolved, say


def study(
    what: Annotated[str, typer.Argument(metavar="STUDY", help="a study of this project, or a file")] = "emoji",
    cluster: ClusterName = None,
    home: Home = None,
    only_plan: Annotated[bool, typer.Option("--plan", help="show what is fixed beforehand, and touch nothing")] = False,
    out: Annotated[Path | None, typer.Option(help="where to write the page [default: HOME/pages]")] = None,
    as_json: Json = False,
) -> None:
    """Answer one question as it was fixed beforehand: train every arm with every seed, compare, and say what was found.

    What is there already is found; with everything there it only computes.
    """
    say("reading the study")
    from flows.context import cluster_name, home_folder
    from xclr.study.spec import load_study, study_file

    loaded, place = load_study(what), home_folder(home)
    if only_plan:
        print(study_file(what).read_text(encoding="utf-8"), end="")
        networks = len(loaded.arms) * loaded.seeds
        print(f"\n{networks} networks are trained and judged, as the run {loaded.recipe.name}", file=sys.stderr)
        return
    from rich.text import Text

    from flows.context import state_folder
    from xclr.captions.source import placed
    from xclr.report.html import keep_fonts
    from xclr.report.study import findings, grids_of_study, reading
    from xclr.report.study_page import write_study_page
    from xclr.store import Store
    from xclr.study.outcome import is_judged, read_outcomes

    loaded = loaded.model_copy(update={"base": resolved(loaded.base, place)})
    there = loaded.model_copy(update={"base": placed(loaded.base, place)})
    if not is_judged(there, Store(place)):
        execute(loaded.recipe, Choices(cluster_name(cluster), home))
    found = findings(loaded, read_outcomes(there, Store(place)))
    if as_json:
        print(json.dumps(found.rows, indent=1))
    else:
        for grid in grids_of_study(found):
            print_table(grid)
        for line in reading(found):
            print_table(Text(line))
    keep_fonts(state_folder(place) / "matplotlib")
    page = write_study_page(place, found, study_file(what).read_text(encoding="utf-8"), out)
    print(f"page        {page}", file=sys.stderr)
