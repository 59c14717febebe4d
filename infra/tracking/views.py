"""A view of an experiment that MLflow's pages open by its key: columns and bars of the scores, in our tables' order."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from infra.tracking.links import COMPARED, VIEW
from infra.tracking.metrics import eval_name
from xclr.recipe import SUITES

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

    from infra.tracking.connection import Connection

LEADING = ("tags.`method`", "tags.`graph`", "tags.`seed`")  # columns
SECTION = "scores"
BOTH = ("clip", "xclr")  # methods
MOST = 100  # runs that an experiment's tag has room for


def record_view(mlflow: Connection, experiment: str, networks: Collection[str]) -> None:
    """Keep in an experiment which columns and bars its pages have, and which runs of these networks are compared."""
    runs = mlflow.runs(experiment)
    view = view_state({name for run in runs for name in run.data.metrics})
    compared = side_by_side([run for run in runs if run.data.tags.get("digest") in networks])
    known = mlflow.client.get_experiment(experiment).tags
    for key, value in {VIEW: view, COMPARED: json.dumps(compared)}.items():
        if known.get(key) != value and (key == VIEW or compared):
            mlflow.client.set_experiment_tag(experiment, key, value)


def headings(metrics: Collection[str]) -> dict[str, str]:
    """The scores among the metrics that our tables have columns for, in their order, which begins with the paper's."""
    known = (
        (eval_name(suite, each.split, each.metric), each.heading)
        for suite, needs in SUITES.items()
        for each in needs.columns
    )
    return {name: heading for name, heading in known if name in metrics}


def view_state(metrics: Collection[str]) -> str:
    """The view as MLflow keeps it in a tag, of an experiment whose runs have these metrics."""
    shown = headings(metrics)
    state = {
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
        "selectedColumns": [*LEADING, *(f"metrics.`{name}`" for name in shown)],
        "compareRunCharts": list(_bars(shown.items())),
        "compareRunSections": [
            {"uuid": SECTION, "name": SECTION, "display": True, "isReordered": True, "deleted": False}
        ],
        "isAccordionReordered": True,
    }
    return f"deflate;{base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()}"


def _bars(shown: Iterable[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    for name, heading in shown:
        yield {
            "type": "BAR", "uuid": name, "metricKey": name, "displayName": heading,
            "metricSectionId": SECTION, "runsCountToCompare": 10, "deleted": False, "isGenerated": True,
        }  # fmt: skip


def side_by_side(networks: Sequence[MlflowRun]) -> list[str]:
    """The runs that are compared first: CLIP's and X-CLR's where both are there, else all that are trained; or none."""
    trained = [each for each in networks if "rate" in each.data.tags]
    chosen = [each for each in trained if each.data.tags["method"] in BOTH]
    if {each.data.tags["method"] for each in chosen} != set(BOTH):
        chosen = trained
    chosen.sort(key=lambda each: (each.data.tags["method"], int(each.data.tags["seed"])))
    return [each.info.run_id for each in chosen] if 1 < len(chosen) <= MOST else []
