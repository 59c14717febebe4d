"""MLflow: one experiment a recipe, one run a pretraining; everything is logged once, however often it is run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, islice
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from filelock import FileLock

from infra.executors.executor import executor_of
from infra.ledger import Usage
from infra.progress import Advance, read_progress
from xclr.artifact import Artifact, Manifest
from xclr.recipe import Recipe
from xclr.spool import SPOOL, Entry, read_spool
from xclr.stage import Stage

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric
    from mlflow.entities import Run as MlflowRun

LOCK = "tracking.lock"  # in STATE: one thread of one process writes at a time; together they break MLflow's unique keys
BATCH = 1000  # metrics a request: MLflow's limit
FOLLOW_EVERY_S = 6.0  # between two uploads of a running stage's metrics
SWEPT = "sweep_run"  # tag of a sweep's own run
TABLE = "table.json"
TABLES = "mlflow.loggedArtifacts"  # tag of the files that MLflow's pages show as tables, others are text to them
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}  # read when MLflow is imported


def sqlite_uri(state: Path) -> str:
    """The tracking store that needs no server."""
    return f"sqlite:///{state.absolute()}/mlflow.db"


def ui_address(uri: str) -> str | None:
    """Where the pages of a tracking server are, without the name and password that its address may hold."""
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"}:
        return None
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def runs_page(base: str, experiment: str) -> str:
    """The list of an experiment's runs; without the workflow MLflow opens its pages for language models."""
    return f"{base}/#/experiments/{experiment}/runs?workflowType=machine_learning"


class NewRun(NamedTuple):
    """An MLflow run to create."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str] = {}
    inputs: Sequence[DatasetInput] = ()
    began_ms: int | None = None


class Made(NamedTuple):
    """A finished stage's output, what its jobs used, and for a found one the run that made it."""

    artifact: Artifact
    manifest: Manifest
    usage: Usage | None = None
    reused_from: str | None = None


class SweepSummary(NamedTuple):
    """What came of a sweep: a table of its cells, numbers and tags, files by name; `done` cells of it, all or not."""

    done: int
    complete: bool
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    rows: Sequence[Mapping[str, Any]]
    files: Mapping[str, bytes]


class Tracker:
    """Writes stages to one experiment of an MLflow store."""

    def __init__(self, uri: str, recipe: Recipe, artifacts: Path, tags: Mapping[str, str]) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        self.uri, self.recipe, self.artifacts, self.tags = uri, recipe, artifacts, dict(tags)
        artifacts.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(artifacts.parent / LOCK)
        self.opened: tuple[MlflowClient, str] | None = None
        self.runs: dict[str, MlflowRun] = {}  # by our digest, or "data"
        self.sent: dict[str, int] = {}  # last step sent, by digest
        self.followed: dict[str, float] = {}  # when a running stage was last looked at, by digest

    def record(self, stage: Stage, made: Made) -> None:
        """Log a finished stage, unless it is logged already."""
        artifact, manifest = made.artifact, made.manifest
        with self.lock:
            client = self._client()
            owner = stage.network
            run = self._pretraining(owner, stage, artifact.path, made.reused_from) if owner else self._data_run()
            if run.data.tags.get(_mark(stage)) == str(stage.digest):
                return
            if stage.kind.network and (artifact.path / SPOOL).exists():
                self._send(stage, artifact.path)
            for batch in _batches(chain(_metrics(stage, artifact, manifest), _costs(stage, made))):
                client.log_batch(run.info.run_id, metrics=batch)
            self._log_files(run, stage, artifact)
            client.set_tag(run.info.run_id, _mark(stage), str(stage.digest))
            if owner in {None, stage.digest}:
                client.set_terminated(run.info.run_id, "FINISHED", _made_ms(manifest))

    def follow(self, stage: Stage, out: Path) -> None:
        """Upload the new metrics of a running pretraining, or how far the pictures are, every few seconds."""
        now = time.monotonic()
        if not stage.kind.watched or now - self.followed.get(stage.digest, -inf) < FOLLOW_EVERY_S:
            return
        self.followed[stage.digest] = now
        with self.lock:
            if stage.kind.network and (out / SPOOL).exists():  # one that waits has no run yet
                self._pretraining(str(stage.digest), stage, out)
                self._send(stage, out)
            elif not stage.kind.network and (seen := read_progress(out)):
                self._advance(stage.kind.name, seen)

    def mark_failed(self, digests: Iterable[str]) -> None:
        """End the runs of networks that could not be made; one that is made later ends well."""
        with self.lock:
            for digest in digests:
                if digest in self.runs:
                    self._client().set_terminated(self.runs[digest].info.run_id, "FAILED")

    def join_sweep(self, sweep: str, cells: Mapping[str, str]) -> None:
        """Tag the runs of a sweep's networks, by digest, with its name and their values; what is not there is left out.

        A run is in as many sweeps as name it: tag `sweep` holds all their names, `sweep.<name>` the values.
        """
        with self.lock:
            client = self._client()
            for digest, values in cells.items():
                if digest in self.runs:
                    run = client.get_run(self.runs[digest].info.run_id)
                    names = {*filter(None, run.data.tags.get("sweep", "").split(",")), sweep}
                    tags = {"sweep": ",".join(sorted(names)), f"sweep.{sweep}": values}
                    for key, value in tags.items():
                        if run.data.tags.get(key) != value:
                            client.set_tag(run.info.run_id, key, value)

    def record_sweep(self, name: str, told: SweepSummary) -> None:
        """Log what came of a sweep to its own run, which is found again when the sweep goes on or is extended."""
        from mlflow.entities import RunTag

        with self.lock:
            client, experiment = self._open()
            found = client.search_runs([experiment], f"tags.{SWEPT} = '{name}'", max_results=1)
            tags = {"stage": "sweep", SWEPT: name, TABLES: json.dumps([{"path": TABLE, "type": "table"}]), **told.tags}
            run = found[0] if found else self._create(NewRun(f"sweep {name}", tags))
            tagged = [RunTag(*each) for each in tags.items()]
            client.log_batch(run.info.run_id, metrics=list(self._news(run, told)), tags=tagged)
            client.log_dict(run.info.run_id, _table(told.rows), TABLE)
            with TemporaryDirectory() as folder:
                for file, content in told.files.items():
                    Path(folder, file).write_bytes(content)
                    client.log_artifact(run.info.run_id, str(Path(folder, file)))
            client.set_terminated(run.info.run_id, "FINISHED" if told.complete else "FAILED")
            self.runs[f"sweep {name}"] = run

    def _news(self, run: MlflowRun, told: SweepSummary) -> Iterator[Metric]:
        """A sweep's numbers that its run lacks, over the cells done; MLflow shows the one of the highest step."""
        from mlflow.entities import Metric

        when = int(time.time() * 1000)
        for name, value in told.metrics.items():
            history = self._client().get_metric_history(run.info.run_id, name)
            last = max(history, key=lambda each: (each.step, each.timestamp), default=None)
            if last is None or told.done > last.step or value != last.value:
                yield Metric(name, value, when, max(told.done, last.step if last else 0))

    def _advance(self, kind: str, seen: Advance) -> None:
        """Rows done, of these the usable ones, rows a second and seconds left, each over the rows done."""
        from mlflow.entities import Metric

        told = {"rows_done": seen.done, "rows_ok": seen.ok, "rows_per_s": seen.per_s, "eta_s": seen.eta_s}
        when = int(time.time() * 1000)
        metrics = [
            Metric(f"data/{kind}/{name}", float(value), when, seen.done) for name, value in told.items() if value
        ]
        self._client().log_batch(self._data_run().info.run_id, metrics=metrics)

    def experiment_url(self) -> str | None:
        """The recipe's experiment in the MLflow UI; None where there is no server."""
        base = ui_address(self.uri)
        return None if base is None else runs_page(base, self._open()[1])

    def run_url(self, digest: str) -> str | None:
        """A pretraining's run in the MLflow UI; None where there is no server or no such run."""
        base, (_, experiment) = ui_address(self.uri), self._open()
        if base is None or digest not in self.runs:
            return None
        return f"{base}/#/experiments/{experiment}/runs/{self.runs[digest].info.run_id}"

    def compare_url(self, digests: Sequence[str]) -> str | None:
        """Pretrainings side by side in the MLflow UI; None where there is no server or are no two runs."""
        base, (_, experiment) = ui_address(self.uri), self._open()
        runs = [self.runs[each].info.run_id for each in digests if each in self.runs]
        if base is None or len(runs) < 2:
            return None
        query = {"runs": json.dumps(runs), "experiments": json.dumps([experiment])}
        return f"{base}/#/compare-runs?{urlencode(query, quote_via=quote)}"

    def _client(self) -> MlflowClient:
        return self._open()[0]

    def _open(self) -> tuple[MlflowClient, str]:
        if self.opened is None:
            from mlflow import MlflowClient

            client = MlflowClient(self.uri)
            where = None if self.uri.startswith("http") else self.artifacts.absolute().as_uri()
            with self.lock:
                found = client.get_experiment_by_name(self.recipe.name)
                experiment = found.experiment_id if found else client.create_experiment(self.recipe.name, where)
            for run in client.search_runs([experiment], max_results=10_000):
                sweep = f"sweep {run.data.tags[SWEPT]}" if SWEPT in run.data.tags else ""
                self.runs[sweep or run.data.tags.get("digest") or run.data.tags.get("stage", "")] = run
            self.opened = client, experiment
        return self.opened

    def _data_run(self) -> MlflowRun:
        return self._run("data", NewRun("data", {"stage": "data", "dataset": self.recipe.data.source}))

    def _pretraining(self, digest: str, stage: Stage, out: Path, reused_from: str | None = None) -> MlflowRun:
        self._open()
        if digest in self.runs:
            return self.runs[digest]
        assert stage.kind.network is not None
        method, dataset, graph, seed = stage.kind.network(stage.config)
        tags = {"method": method, "dataset": dataset, "graph": graph, "seed": str(seed), "digest": digest}
        if reused_from is not None:
            tags["reused_from"] = reused_from
        name = f"{method} {graph} seed {seed}"
        params, first = dict(_flat(stage.identity)), next(read_spool(out / SPOOL), None)
        began_ms = first.time_ms if first else None  # a training that is logged later keeps its times
        return self._run(digest, NewRun(name, tags, params, self._inputs(stage), began_ms))

    def _run(self, key: str, new: NewRun) -> MlflowRun:
        client, experiment = self._open()
        if key not in self.runs:
            tag = "stage" if key == "data" else "digest"  # another process may have created it since
            found = client.search_runs([experiment], f"tags.{tag} = '{key}'", max_results=1)
            self.runs[key] = found[0] if found else self._create(new)
        self.runs[key] = client.get_run(self.runs[key].info.run_id)
        return self.runs[key]

    def _create(self, new: NewRun) -> MlflowRun:
        from mlflow.entities import Param

        client, experiment = self._open()
        run = client.create_run(experiment, new.began_ms, tags={**self.tags, **new.tags}, run_name=new.name)
        client.log_batch(run.info.run_id, params=[Param(each, value) for each, value in new.params.items()])
        if new.inputs:
            client.log_inputs(run.info.run_id, list(new.inputs))
        return run

    def _send(self, stage: Stage, out: Path) -> None:
        """Upload the spooled metrics beyond the last step that the run has."""
        from mlflow.entities import Metric

        run_id, digest = self.runs[str(stage.digest)].info.run_id, str(stage.digest)
        client = self._client()
        if digest not in self.sent:
            history = client.get_metric_history(run_id, "train/loss")
            self.sent[digest] = max((each.step for each in history), default=0)
        fresh = [entry for entry in read_spool(out / SPOOL) if entry.step > self.sent[digest]]
        for batch in _batches(Metric(*each) for entry in fresh for each in _points(entry)):
            client.log_batch(run_id, metrics=batch)
        self.sent[digest] = max((entry.step for entry in fresh), default=self.sent[digest])

    def _log_files(self, run: MlflowRun, stage: Stage, artifact: Artifact) -> None:
        client, folder = self._client(), stage.name.split(" seed ")[0].replace(",", "").replace(" ", "-")
        client.log_artifact(run.info.run_id, str(artifact.path / "manifest.json"), folder)
        for name in stage.kind.shown:
            client.log_artifact(run.info.run_id, str(artifact.path / name), folder)

    def _inputs(self, stage: Stage) -> list[DatasetInput]:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = self.recipe.data.source
        return [
            DatasetInput(
                Dataset(f"{source}-{role}", str(each.digest), "local", json.dumps({"uri": str(each.path)})),
                [InputTag("mlflow.data.context", role)],
            )
            for role, each in stage.inputs.items()
        ]


def _table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows as MLflow's pages show a table; a value that is no number is text."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    plain = (str, int, float, type(None))
    cells = [[row.get(name) for name in columns] for row in rows]
    return {
        "columns": columns,
        "data": [[each if isinstance(each, plain) else str(each) for each in row] for row in cells],
    }


def _mark(stage: Stage) -> str:
    generation = stage.kind.generation(stage.config)
    return f"artifact.{_own_name(stage)}{f'.{generation}' * bool(generation)}"


def _own_name(stage: Stage) -> str:
    """What a stage is called beside others of its kind on the same run: a suite by its name, features by their data."""
    part = stage.kind.part(stage.config)
    return part if stage.kind.judges else f"{stage.kind.name}.{part}".rstrip(".")


def _metrics(stage: Stage, artifact: Artifact, manifest: Manifest) -> Iterator[Metric]:
    """The numbers of a stage as MLflow metrics, dated by the artifact, so that logging them again changes nothing."""
    from mlflow.entities import Metric

    when = _made_ms(manifest)
    if stage.kind.judges:
        import pyarrow.parquet as pq

        for row in pq.read_table(artifact.path / "scores.parquet").to_pylist():
            name = f"eval/{row['suite']}/{row['split']}_{row['metric']}"
            yield Metric(name, row["value"], when, row["step"])
        return
    prefix = "system" if stage.network else "data"
    for key, value in manifest.cost.model_dump().items():
        yield Metric(f"{prefix}/{_own_name(stage)}/{key}", float(value), when, 0)
    if prefix == "data":
        arrays = any(executor_of(each).has_arrays for each in manifest.jobs)  # their time is not their last element's
        for key, value in stage.kind.facts(stage.config, manifest, not arrays).items():
            if isinstance(value, int | float):
                yield Metric(f"data/{_own_name(stage)}/{key}", float(value), when, stage.kind.generation(stage.config))


def _costs(stage: Stage, made: Made) -> Iterator[Metric]:
    """cost/gpu_hours/<stage>, cost/cpu_hours/... and cost/cpu_efficiency/...; a suite under its own name."""
    from mlflow.entities import Metric

    if made.usage is not None:
        name = _mark(stage).removeprefix("artifact.")
        for key, value in made.usage.model_dump(exclude={"jobs"}, exclude_none=True).items():
            yield Metric(f"cost/{key}/{name}", float(value), _made_ms(made.manifest), 0)


def _made_ms(manifest: Manifest) -> int:
    return int(datetime.fromisoformat(manifest.created).timestamp() * 1000)


def _points(entry: Entry) -> Iterator[tuple[str, float, int, int]]:
    for name, value in entry.metrics.items():
        yield name, value, entry.time_ms, entry.step


def _batches(metrics: Iterator[Metric]) -> Iterator[list[Metric]]:
    while batch := list(islice(metrics, BATCH)):
        yield batch


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
