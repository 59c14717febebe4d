"""The command `xclr export`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Home, Json, say


def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="a run's id, or a recipe's name for its last run that completed")
    ],
    method: Annotated[str | None, typer.Option(help="whose backbone: --method xclr")] = None,
    seed: Annotated[int | None, typer.Option(help="of several seeds [default: the recipe's first]")] = None,
    graph: Annotated[str | None, typer.Option(help="where its targets come from, of several: --graph wordnet")] = None,
    form: Annotated[
        str, typer.Option("--format", help="safetensors, torchvision, timm, onnx or hf (transformers)")
    ] = "safetensors",
    *,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="the folder to write [default: one in HOME/exports]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an export that is there")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write a trained backbone for other libraries: weights, preprocessing, and a card with the lines that load it."""
    say("loading the network")
    from flows.context import home_folder
    from xclr.opened import run_of

    place = home_folder(home)
    opened = run_of(place, run)
    network = opened.network(method, seed, graph)
    folder = opened.export(network, form, out, force=force)
    files = sorted(each.name for each in folder.iterdir() if each.is_file())
    if as_json:
        about = {"run": opened.record.run, "method": network.method, "graph": network.graph, "seed": network.seed}
        print(json.dumps(about | {"format": form, "folder": str(folder), "files": files}, indent=1))
        return
    print(folder)
    called = f"{network.called} of {opened.record.run}"
    print(f"{called}:\n{', '.join(files)};\nREADME.md says how to load it", file=sys.stderr)
