"""The command `xclr register`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from flows.cli.options import Home, Json
from xclr.errors import RecipeError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

    from xclr.opened import Opened, Trained

UNFIT = frozenset("/:'\"%")  # what MLflow's names of models, and its filters of them, cannot hold


class Judged(NamedTuple):
    """A network, and its score by a suite: the metric's name in MLflow, the value, whether less is better."""

    network: Trained
    score: str
    value: float
    least: bool


def register(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="a run's id, or a recipe's name for its last run that completed")
    ],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="the registered model")],
    method: Annotated[str | None, typer.Option(help="whose backbone: --method xclr")] = None,
    seed: Annotated[int | None, typer.Option(help="of several seeds [default: the recipe's first]")] = None,
    graph: Annotated[str | None, typer.Option(help="where its targets come from, of several: --graph wordnet")] = None,
    *,
    alias: Annotated[str | None, typer.Option(help="what else this version is called: --alias production")] = None,
    suite: Annotated[
        str | None, typer.Option(help="take the best of these by a suite, and call NAME's best version best-<suite>")
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Register a trained backbone in MLflow, where mlflow.pytorch.load_model opens it by its name; once, however often.

    With --suite it is the best network of the run by that suite, of the method, seed and graph that are named, and the
    best version of NAME by the same score gets the alias.
    """
    from flows.context import home_folder
    from infra.tracking.links import ui_address
    from xclr.opened import run_of

    if not name.strip() or UNFIT & set(name):
        raise RecipeError(f"--as {name}: MLflow takes no such name", f"leave out {' '.join(sorted(UNFIT))}")
    place = home_folder(home)
    opened = run_of(place, run)
    judged = None if suite is None else best_by(opened, suite, {"method": method, "seed": seed, "graph": graph})
    network = opened.network(method, seed, graph) if judged is None else judged.network
    client, model = _model(place, opened, network)
    version, aliases = _register(client, model, name, alias, judged)
    where = ui_address(client.tracking_uri) or client.tracking_uri
    uri = f"models:/{name}/{version.version}"
    if as_json:
        about = {"run": opened.record.run, "method": network.method, "graph": network.graph, "seed": network.seed}
        print(
            json.dumps(
                about | {"name": name, "version": int(version.version), "uri": uri, "aliases": aliases}, indent=1
            )
        )
        return
    print(uri)
    print(f"{network.called} of {opened.record.run}", file=sys.stderr)
    print(f'mlflow.pytorch.load_model("{uri}") opens it where MLFLOW_TRACKING_URI={where}', file=sys.stderr)
    for called, which in aliases.items():
        print(f"models:/{name}@{called} is version {which}", file=sys.stderr)


def best_by(opened: Opened, suite: str, asked: dict[str, str | int | None]) -> Judged:
    """The best network of a run by a suite's headline, of those that are asked for.

    Raises StoreError where the suite has judged none of them.
    """
    from xclr.report.tables import best_mean, headline_of

    rows = opened.scores().to_pylist()
    column = headline_of(suite, {(row["suite"], row["split"], row["metric"]) for row in rows})
    if column is None:
        suites = ", ".join(dict.fromkeys(row["suite"] for row in rows)) or "none"
        raise StoreError(f"suite {suite} has not judged {opened.record.run}", f"there are: {suites}")
    values = {
        row["checkpoint"]: row["value"] for row in rows if (row["suite"], row["split"], row["metric"]) == column.key
    }
    wanted = {key: value for key, value in asked.items() if value is not None}
    found = [
        (each, values[str(each.checkpoint.digest)])
        for each in opened.networks()
        if str(each.checkpoint.digest) in values and all(getattr(each, key) == value for key, value in wanted.items())
    ]
    if not found:
        named = ", ".join(dict.fromkeys(each.called for each in opened.networks()))
        said = ", ".join(f"{key} {value}" for key, value in wanted.items())
        raise StoreError(f"suite {suite} has judged no network of {said}", f"name one of: {named}")
    best = best_mean([value for _, value in found], column.key)
    network, value = next(each for each in found if best in {None, each[1]})
    _, split, metric = column.key
    return Judged(network, f"eval/{suite}/{split}_{metric}", value, metric == "gap")


def _model(home: Path, opened: Opened, network: Trained) -> tuple[MlflowClient, LoggedModel]:
    """MLflow, and a network's model in it; raises StoreError where there is none and none can be made."""
    from flows.context import reach_mlflow, state_folder
    from infra import servers
    from infra.tracking.tracker import Tracker
    from xclr.training.stages import PRETRAIN

    if network.checkpoint.kind != PRETRAIN.name:
        raise StoreError(f"{network.called} is a network from elsewhere", "register it from its library")
    state = state_folder(home)
    uri = reach_mlflow(state)
    tracker = Tracker(uri, opened.record.recipe, servers.artifacts_of(state), {})
    from mlflow import MlflowClient  # whose import the tracker keeps quiet

    model = tracker.model(network.checkpoint)
    if model is None:
        raise StoreError(
            f"MLflow has no model of {network.called} of {opened.record.run}",
            f"xclr retry {opened.record.run} finds what is done, and tells MLflow of it",
        )
    return MlflowClient(uri), model


def _register(
    client: MlflowClient, model: LoggedModel, name: str, alias: str | None, judged: Judged | None
) -> tuple[ModelVersion, dict[str, int]]:
    """The version that a model is, and which versions the aliases are now; raises StoreError where MLflow refuses."""
    from mlflow.exceptions import MlflowException

    from infra.tracking import models

    aliases = {}
    try:
        version = models.register(client, model, name)
        if alias is not None:
            aliases[alias] = version
        if judged is not None:
            client.set_model_version_tag(name, version.version, judged.score, repr(judged.value))
            suite = judged.score.split("/")[1]
            aliases[f"best-{suite}"] = models.best_version(client, name, judged.score, least=judged.least)
        for called, which in aliases.items():
            client.set_registered_model_alias(name, called, which.version)
    except MlflowException as error:
        said = next(iter(str(error).splitlines()), "")
        raise StoreError(f"MLflow does not register {name}: {said}", "choose another name or alias") from error
    return version, {called: int(which.version) for called, which in aliases.items()}
