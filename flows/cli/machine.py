"""The commands about this machine: its servers, and what it has and lacks."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import Home, Json, coloured, print_table, say

if TYPE_CHECKING:
    from infra.finding import Finding


def serve(
    home: Home = None,
    prefect_port: Annotated[int, typer.Option(help="of the Prefect UI")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="of the MLflow UI")] = 5000,
) -> None:
    """Start the Prefect and MLflow servers on loopback and keep them up until Ctrl-C."""
    print("starting Prefect and MLflow", file=sys.stderr)
    from flows.context import check_places, home_folder, state_folder, tell_mlflow
    from infra import servers
    from infra.access import written_for_prefect
    from infra.tracking.experiment import bring_files_along
    from infra.tracking.links import DATABASE

    place = home_folder(home)
    state = state_folder(place)
    ports = {"--prefect-port": (servers.PREFECT, prefect_port), "--mlflow-port": (servers.MLFLOW, mlflow_port)}
    servers.check_ports(ports, state)
    check_places(place)
    for each in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell starts background programs without it
        signal.signal(each, signal.default_int_handler)
    bring_files_along(state / DATABASE, servers.artifacts_of(state))
    with (
        servers.using(servers.PREFECT, state, prefect_port) as prefect,
        servers.using(servers.MLFLOW, state, mlflow_port) as mlflow,
    ):
        tell_mlflow(place)
        with written_for_prefect(place, state, f"{prefect}/api") as written:
            try:
                _say_served(place, prefect, mlflow, written=written)
                signal.pause()
            except KeyboardInterrupt:
                print("stopping", file=sys.stderr)


def _say_served(home: Path, prefect: str, mlflow: str, *, written: bool) -> None:
    from flows.context import state_folder
    from infra import servers
    from infra.access import MLFLOW_PASSWORD, MLFLOW_USER, PREFECT_AUTH, auth_file, auth_string
    from infra.loopback import NAMES, names_a_proxy

    state = state_folder(home)
    user, secret = auth_string(state).partition(":")[0], shlex.quote(str(auth_file(state)))
    print(f"Prefect  {prefect}\nMLflow   {mlflow}", flush=True)
    for name, pages in servers.experiments(mlflow, auth_string(state)).items():
        print(f"  {name:<9}{pages.runs}")
        for what, page in (("scores", pages.view), ("compare", pages.compare)):
            if page is not None:
                print(f"    {what:<8}{page}")
    print(f"\nThe pages ask once, Prefect's for what this prints:  cat {secret}")
    print(f"MLflow's for the user {user} and what stands there after the colon.")
    exports = {"XCLR_HOME": shlex.quote(str(home))}
    if written:
        print("\nFor Prefect's own commands, in another terminal here (.env says how to ask):")
    else:
        print("\nFor Prefect's own commands, in another terminal (the .env here stays as it is):")
        exports = {"PREFECT_API_URL": f"{prefect}/api", PREFECT_AUTH: f'"$(cat {secret})"', **exports}
    if names_a_proxy(os.environ):
        exports |= {name: shlex.quote(os.environ[name]) for name in NAMES}
    print(f"  {_export(exports)}\nFor MLflow's own, and for programs that read it:")
    known = {MLFLOW_USER: user, MLFLOW_PASSWORD: f'"$(cut -d: -f2 {secret})"'}
    print(f"  {_export({'MLFLOW_TRACKING_URI': mlflow, **known})}\n\nCtrl-C stops both.", flush=True)


def _export(variables: Mapping[str, str]) -> str:
    return "export " + " ".join(f"{name}={value}" for name, value in variables.items())


def doctor(
    gpu: Annotated[
        bool,
        typer.Option(
            "--gpu", help="only the GPUs: gathering between them, a minute's speed, and what is the narrow place"
        ),
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
    say("looking at this machine")
    from flows.context import home_folder, state_folder
    from infra.cluster import load_cluster
    from infra.doctor.cluster import examine_cluster
    from infra.doctor.datasets import check_datasets
    from infra.doctor.machine import examine, examine_gpus
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
        examined = examine_gpus(seconds, say) if gpu else examine(place, state_folder(place), say)
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
    for width in (8, 18, None):  # what does not fit is folded below itself
        line.add_column(width=width, overflow="fold")
    line.add_row(coloured(finding.state), finding.check, escape(finding.found))
    if finding.remedy:
        line.add_row("", "", f"[dim]-> {escape(finding.remedy)}")
    print_table(line)
