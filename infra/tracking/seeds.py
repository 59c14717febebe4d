"""The run of a method over its seeds: what it says of the runs below it, which are those of its networks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from infra.tracking.described import NOTE, SEEDS, NewRun
from infra.tracking.metrics import CI95, EVAL_STEP
from xclr.stage import network_name

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

    from infra.tracking.connection import Connection

PARENT = "mlflow.parentRunId"
BELOW = {"mlflow.runType": "evaluation"}  # tag of the runs below it: MLflow opens what is above them at the first visit
FEWEST = 3  # seeds that have an interval, as in every table of ours
SHARED = (SEEDS, "method", "dataset", "graph", "rate", "uses", "data.path", "text_model")  # tags


def record_seeds(mlflow: Connection, experiment: str, group: str, tags: Mapping[str, str]) -> None:
    """Log the run over the seeds of one method, once there are two; what is there is brought up to date."""
    from mlflow.entities import Metric, Param, RunTag

    found = mlflow.runs(experiment, f"tags.{SEEDS} = '{group}'")
    children = [each for each in found if "digest" in each.data.tags]
    if len(seeds_of(children)) < 2:
        return
    new = parent_of(children)
    run = next((each for each in found if "digest" not in each.data.tags), None)
    run = run or mlflow.create(experiment, new, tags)
    when, known, run_id = int(time.time() * 1000), run.data, run.info.run_id
    means = [each for each in means_of(children).items() if known.metrics.get(each[0]) != each[1]]
    metrics = [Metric(name, value, when, EVAL_STEP) for name, value in means]
    params = [Param(*each) for each in new.params.items() if each[0] not in known.params]  # it was killed before
    news = [RunTag(*each) for each in new.tags.items() if known.tags.get(each[0]) != each[1]]
    mlflow.client.log_batch(run_id, metrics, params, news)
    for child in children:
        mlflow.set_tags(child, {PARENT: run_id, **BELOW})
    if run.info.end_time != (ended := ended_ms(children)):
        mlflow.client.set_terminated(run_id, "FINISHED", ended)


def seeds_of(children: Sequence[MlflowRun]) -> list[int]:
    """The seeds of a method's networks, each once."""
    return sorted({int(each.data.tags["seed"]) for each in children})


def parent_of(children: Sequence[MlflowRun]) -> NewRun:
    """The run of a method over its seeds, two or more."""
    first, seeds = children[0].data, ", ".join(map(str, seeds_of(children)))
    name = network_name(first.tags["method"], first.tags["graph"])
    note = (
        f"The method **{name}** over seeds {seeds}: each score is the mean of theirs, `{CI95}` half the width of "
        f"Student's 95% interval over {FEWEST} seeds or more. The runs below it are its networks."
    )
    tags = {key: first.tags[key] for key in SHARED if key in first.tags}
    params = {key: value for key, value in first.params.items() if key != "seed"}
    began = min(each.info.start_time for each in children)
    return NewRun(name, tags | {"stage": SEEDS, "seed": seeds, NOTE: note}, params, began_ms=began)


def ended_ms(children: Sequence[MlflowRun]) -> int:
    """When the last of a method's networks was there."""
    return max(int(each.info.end_time or each.info.start_time) for each in children)


def means_of(children: Sequence[MlflowRun]) -> dict[str, float]:
    """The mean of every score that two networks or more have, and behind it its interval where there is one."""
    from xclr.evaluation.score import t_half_width  # brings NumPy and pyarrow, which commands that only look do without

    told: dict[str, float] = {}
    for name, values in _scores(children).items():
        if len(values) > 1:
            told[name] = fmean(values)
        if len(values) >= FEWEST:
            told[f"{name}/{CI95}"] = t_half_width(values)
    return told


def _scores(children: Sequence[MlflowRun]) -> Mapping[str, list[float]]:
    found: dict[str, list[float]] = {}
    for child in sorted(children, key=lambda each: int(each.data.tags["seed"])):
        for name, value in child.data.metrics.items():
            if name.startswith("eval/") and not name.endswith(f"/{CI95}"):
                found.setdefault(name, []).append(value)
    return found
