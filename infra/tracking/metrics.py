"""What of a stage MLflow is told: its metrics, tables and tags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from infra.executors.executor import executor_of
from xclr.artifact import Artifact, Manifest, Usage
from xclr.stage import Stage
from xclr.training.spool import Point

if TYPE_CHECKING:
    from mlflow.entities import Metric

BATCH = 1000  # metrics a request: MLflow's limit
EVAL_STEP = 0  # MLflow draws a metric as bars side by side where no run has it at a later step
USAGE = "usage"  # before what stages of a network took; MLflow shows what is called system/ before all else
CI95 = "ci95"  # behind a score's name: half the width of its interval


class Made(NamedTuple):
    """A finished stage's output, what its jobs used, and for a found one the run that made it."""

    artifact: Artifact
    manifest: Manifest
    usage: Usage | None = None
    reused_from: str | None = None


def write_table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows as MLflow's pages show a table; a value that is no number is text."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    plain = (str, int, float, type(None))
    cells = [[row.get(name) for name in columns] for row in rows]
    return {
        "columns": columns,
        "data": [[each if isinstance(each, plain) else str(each) for each in row] for row in cells],
    }


def mark_of(stage: Stage) -> str:
    """The tag of a run that says which output of a stage it shows."""
    generation = stage.kind.generation(stage.config)
    return f"artifact.{_own_name(stage)}{f'.{generation}' * bool(generation)}"


def time_of(stage: Stage) -> str:
    """The tag of a run that says when that output was made; one that is made again is logged again."""
    return f"made.{mark_of(stage).removeprefix('artifact.')}"


def _own_name(stage: Stage) -> str:
    """What a stage is called beside others of its kind on the same run: a suite by its name, features by their data."""
    part = stage.kind.part(stage.config)
    return part if stage.kind.judges else f"{stage.kind.name}.{part}".rstrip(".")


def eval_name(suite: str, split: str, metric: str) -> str:
    """The metric of a score: a split that its metric names is left out, shares of the labels sort as numbers do."""
    part = re.sub(r"^(\d+)(?=-percent$)", lambda found: found[1].zfill(3), split)
    return f"eval/{suite}/{metric if split == metric else f'{part}_{metric}'}"


def metrics_of(stage: Stage, artifact: Artifact, manifest: Manifest) -> Iterator[Metric]:
    """The numbers of a stage as MLflow metrics, dated by the artifact, so that logging them again changes nothing."""
    from mlflow.entities import Metric

    when = made_ms(manifest)
    if stage.kind.judges:
        import pyarrow.parquet as pq

        for row in pq.read_table(artifact.path / "scores.parquet").to_pylist():
            name = eval_name(row["suite"], row["split"], row["metric"])
            yield Metric(name, row["value"], when, EVAL_STEP)
            if row["ci95"] is not None:
                yield Metric(f"{name}/{CI95}", row["ci95"], when, EVAL_STEP)
        return
    prefix = USAGE if stage.network else "data"
    for key, value in manifest.cost.model_dump(exclude_defaults=True).items():
        yield Metric(f"{prefix}/{_own_name(stage)}/{key}", float(value), when, 0)
    if prefix == "data":
        whole = not any(executor_of(each).has_arrays for each in manifest.jobs)  # an element's time is not an array's
        for key, value in stage.kind.facts(stage.config, manifest, whole).items():
            if isinstance(value, int | float):
                yield Metric(f"data/{_own_name(stage)}/{key}", float(value), when, stage.kind.generation(stage.config))


def with_model(metrics: Iterable[Metric], model: str | None) -> Iterator[Metric]:
    """Metrics of a run that are those of its logged model too, where it has one: the scores."""
    from mlflow.entities import Metric

    for each in metrics:
        scored = model is not None and each.key.startswith("eval/")
        yield Metric(each.key, each.value, each.timestamp, each.step, model_id=model) if scored else each


def costs_of(stage: Stage, made: Made) -> Iterator[Metric]:
    """usage/<stage>/gpu_hours, .../cpu_hours and .../cpu_efficiency; a suite under its own name."""
    from mlflow.entities import Metric

    if made.usage is not None:
        name = mark_of(stage).removeprefix("artifact.")
        for key, value in made.usage.model_dump(exclude={"jobs"}, exclude_none=True).items():
            yield Metric(f"{USAGE}/{name}/{key}", float(value), made_ms(made.manifest), 0)


def made_ms(manifest: Manifest) -> int:
    """When an artifact was made, in ms since the epoch."""
    return int(datetime.fromisoformat(manifest.created).timestamp() * 1000)


def began_ms(manifest: Manifest, first: Point | None = None) -> int:
    """When the making of an artifact began, in ms: with its first metrics, else so long before its end as it took."""
    return first.time_ms if first else made_ms(manifest) - round(1000 * manifest.cost.wall_s)


def points_of(point: Point) -> Iterator[tuple[str, float, int, int]]:
    """The metrics of a spool's line: name, value, time, step."""
    for name, value in point.metrics.items():
        yield name, value, point.time_ms, point.step


def batches_of(metrics: Iterator[Metric]) -> Iterator[list[Metric]]:
    """Metrics in as many requests as MLflow wants."""
    while batch := list(islice(metrics, BATCH)):
        yield batch


def flat_items(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested config as parameters with dotted names."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat_items(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
