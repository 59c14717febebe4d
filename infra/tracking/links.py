"""Where MLflow's store and pages are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

VIEW_KEY = "xclr"
VIEW = f"mlflow.sharedViewState.{VIEW_KEY}"  # tag of an experiment: how its scores are shown
DATA_OF = "xclr.data_of"  # tag of an experiment of data: the recipe
COMPARED = "xclr.compared"  # tag of an experiment: which of its runs are looked at side by side
TRAINING = {"workflowType": "machine_learning"}  # without it MLflow opens its pages for language models

DATABASE = "mlflow.db"  # in STATE


def sqlite_uri(state: Path) -> str:
    """The tracking store that needs no server."""
    return f"sqlite:///{state.absolute()}/{DATABASE}"


def ui_address(uri: str) -> str | None:
    """Where the pages of a tracking server are, without the name and password that its address may hold."""
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"}:
        return None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


class Pages(NamedTuple):
    """Of a recipe's experiment: its runs, the view of their scores, and CLIP beside X-CLR; None for what is not yet."""

    runs: str
    view: str | None
    compare: str | None


def pages_of(base: str, experiment: str, tags: Mapping[str, str]) -> Pages:
    """The pages that an experiment's tags tell of."""
    view = view_page(base, experiment) if VIEW in tags else None
    compare = compare_page(base, experiment, json.loads(tags[COMPARED])) if COMPARED in tags else None
    return Pages(runs_page(base, experiment), view, compare)


def runs_page(base: str, experiment: str) -> str:
    """The list of an experiment's runs."""
    return f"{base}/#/experiments/{experiment}/runs?{urlencode(TRAINING)}"


def view_page(base: str, experiment: str) -> str:
    """The same with bars and columns of the scores."""
    return f"{runs_page(base, experiment)}&{urlencode({'compareRunsMode': 'CHART', 'viewStateShareKey': VIEW_KEY})}"


def run_page(base: str, experiment: str, run: str) -> str:
    """A run."""
    return f"{base}/#/experiments/{experiment}/runs/{run}?{urlencode(TRAINING)}"


def compare_page(base: str, experiment: str, runs: Sequence[str]) -> str:
    """Runs of an experiment side by side."""
    query = {"runs": json.dumps(list(runs)), "experiments": json.dumps([experiment]), **TRAINING}
    return f"{base}/#/compare-runs?{urlencode(query, quote_via=quote)}"
