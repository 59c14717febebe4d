"""MLflow: one experiment a recipe, one run a pretraining; everything is logged once, however often it is run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import chain
from logging import getLogger
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from filelock import FileLock

from infra.cluster import Tracking
from infra.progress import Advance, read_progress
from infra.tracking.experiment import bring_files_along, open_experiment
from infra.tracking.files import Pages, Upload, joined_tables, page_uploads, tables_of, uploads_of
from infra.tracking.inputs import inputs_of, lineage_files
from infra.tracking.links import DATABASE, runs_page, sqlite_uri, ui_address
from infra.tracking.metrics import (
    Made,
    batches_of,
    costs_of,
    flat_items,
    made_ms,
    mark_of,
    metrics_of,
    points_of,
    time_of,
    with_model,
    write_table,
)
from infra.tracking.versions import VERSIONS, installed
from xclr.artifact import Artifact
from xclr.recipe import Recipe, recipe_yaml
from xclr.stage import Stage
from xclr.store import Store
from xclr.training.spool import SPOOL, read_spool
from xclr.training.stages import PRETRAIN
from xclr.training.watch import read_notices

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, LoggedModel, Metric
    from mlflow.entities import Run as MlflowRun
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

LOCK = "tracking.lock"  # in STATE: one thread of one process writes at a time; together they break MLflow's unique keys
FOLLOW_EVERY_S = 6.0  # between two uploads of a running stage's metrics
PROXIED = "mlflow-artifacts"  # scheme of files that go through the server
WARNING = "warning"  # tag of a training that does not learn: what is seen, and the remedy
SWEPT = "sweep_run"  # tag of a sweep's own run
PAGES = "pages"  # tag: the digest of the scores that a run's pages show
TABLE, RECIPE = "table.json", "recipe.yaml"
TABLES = "mlflow.loggedArtifacts"  # tag of the files that MLflow's pages show as tables, others are text to them
QUIET = {  # read when MLflow is imported; our own lines say where a run is seen
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
RunState = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]  # of MLflow
DATA = "data"  # the run of the data stages
HASTY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}  # its own: minutes of silence


class NewRun(NamedTuple):
    """An MLflow run to create."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str] = {}
    inputs: Sequence[DatasetInput] = ()
    began_ms: int | None = None


class SweepSummary(NamedTuple):
    """What came of a sweep: a table of its cells, numbers and tags, files by name; how many are done, its state."""

    done: int
    state: RunState
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    rows: Sequence[Mapping[str, Any]]
    files: Mapping[str, bytes]


def sweep_key(name: str) -> str:
    """What a sweep's own run is known by."""
    return f"sweep {name}"


class Tracker:
    """Writes stages to one experiment of an MLflow store."""

    def __init__(
        self, uri: str, recipe: Recipe, artifacts: Path, tags: Mapping[str, str], tracking: Tracking | None = None
    ) -> None:
        for name, value in {**QUIET, **HASTY}.items():
            os.environ.setdefault(name, value)
        import_module("mlflow")  # sets logging up: in a thread of the run, it and Prefect might wait for each other
        self.uri, self.recipe, self.artifacts, self.tags = uri, recipe, artifacts, dict(tags)
        self.tracking = tracking or Tracking()
        artifacts.parent.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(artifacts.parent / LOCK)
        self.say: Callable[[str], object] = getLogger("xclr").warning
        self.points = 0  # that were sent, of trainings' curves
        self.followed: dict[str, float] = {}  # when a running stage was last looked at, by digest
        self.forget()

    def forget(self) -> None:
        """Ask MLflow anew for all that was known of it: it may have come back with less, or another."""
        self.opened: tuple[MlflowClient, str] | None = None
        self.runs: dict[str, MlflowRun] = {}  # by our digest, or DATA
        self.states: dict[str, str] = {}  # of these runs, as we know or left them
        self.sent: dict[str, dict[str, int]] = {}  # last step sent of each metric, by digest
        self.seen: set[str] = set()  # digests whose run is known to have what it was given
        self.described: set[str] = set()  # ids of MLflow runs that have the recipe and the versions

    def record(self, stage: Stage, made: Made) -> bool:
        """Log a finished stage; False where it is logged already."""
        from mlflow.entities import RunTag

        artifact, manifest = made.artifact, made.manifest
        with self.lock:
            client = self._client()
            owner = stage.network
            run = self._pretraining(owner, stage, artifact.path, made.reused_from) if owner else self._data_run()
            told, shown = {mark_of(stage): str(stage.digest), time_of(stage): manifest.created}, run.data.tags
            ends, ended_ms = owner in {None, stage.digest}, made_ms(manifest)
            if told.items() <= {time_of(stage): manifest.created, **shown}.items():  # older runs know no time
                if ends:
                    self.end(owner or DATA, "FINISHED", ended_ms)
                return False
            if stage.kind.network and (artifact.path / SPOOL).exists():
                self._send(stage, artifact.path)
            scored = with_model(metrics_of(stage, artifact, manifest), self._model(run, stage, artifact))
            for batch in batches_of(chain(scored, costs_of(stage, made))):
                client.log_batch(run.info.run_id, metrics=batch)
            self._log_files(run, stage, made)
            self._log_lineage(run, stage, artifact)
            client.log_batch(run.info.run_id, tags=[RunTag(*each) for each in told.items()])
            if ends:
                self.end(owner or DATA, "FINISHED", ended_ms)
            return True

    def follow(self, stage: Stage, out: Path) -> None:
        """Upload the new metrics of a running pretraining, or how far the pictures are, every few seconds."""
        now = time.monotonic()
        if not stage.kind.watched or now - self.followed.get(stage.digest, -inf) < FOLLOW_EVERY_S:
            return
        self.followed[stage.digest] = now
        with self.lock:
            if stage.kind.network:
                self.upload(stage, out)
                self.end(str(stage.digest), "RUNNING")
            elif seen := read_progress(out):
                self._advance(stage.kind.name, seen)
                self.end(DATA, "RUNNING")

    def upload(self, stage: Stage, out: Path) -> None:
        """Upload what a training has logged so far; one that has not begun has no run yet."""
        if (out / SPOOL).exists():
            with self.lock:
                self._pretraining(str(stage.digest), stage, out)
                self._send(stage, out)

    def end(self, key: str, state: RunState, ended_ms: int | None = None) -> None:
        """Bring the run of a network's digest, of DATA or of a sweep to a state, where there is one and it has another.

        A run goes on after any end: what failed may be made later, and then ends well.
        """
        with self.lock:
            client = self._client()
            if key not in self.runs or self.states.setdefault(key, self.runs[key].info.status) == state:
                return
            if state == "RUNNING":
                client.update_run(self.runs[key].info.run_id, state)
            else:
                client.set_terminated(self.runs[key].info.run_id, state, ended_ms)
            self.states[key] = state

    def has(self, key: str) -> bool:
        """True where a network's digest, DATA or a sweep has a run."""
        self._open()
        return key in self.runs

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
            self._write(run, {TABLE: json.dumps(write_table(told.rows)).encode(), **told.files})
            self.runs[sweep_key(name)] = run
            self.end(sweep_key(name), told.state)

    def record_pages(self, digests: Iterable[str], pages: Pages) -> None:
        """Give the runs of networks the pages of a run, but those that show its scores already."""
        with self.lock, TemporaryDirectory() as folder:
            client, uploads = self._client(), list(page_uploads(pages, self.tracking, Path(folder)))
            for run in (self.runs[each] for each in digests if each in self.runs):
                if client.get_run(run.info.run_id).data.tags.get(PAGES) != pages.scores:
                    self._upload(run, uploads)
                    client.set_tag(run.info.run_id, PAGES, pages.scores)

    def model(self, checkpoint: Artifact) -> LoggedModel | None:
        """A pretraining's logged model, made unless it is there; None without a run, or where none can be made."""
        from infra.tracking.models import log_model

        with self.lock:
            client, run = self._client(), self.runs.get(str(checkpoint.digest))
            return None if run is None else log_model(client, run, checkpoint, self._files_at)

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

            where = None if self.uri.startswith("http") else self.artifacts.absolute().as_uri()
            with self.lock:
                if self.uri == sqlite_uri(self.artifacts.parent):
                    bring_files_along(self.artifacts.parent / DATABASE, self.artifacts)
                client = MlflowClient(self.uri)
                experiment = open_experiment(client, self.recipe.name, where, self.say)
            for run in client.search_runs([experiment], max_results=10_000):
                sweep = sweep_key(run.data.tags[SWEPT]) if SWEPT in run.data.tags else ""
                self.runs[sweep or run.data.tags.get("digest") or run.data.tags.get("stage", "")] = run
            self.opened = client, experiment
        return self.opened

    def _data_run(self) -> MlflowRun:
        return self._run(DATA, NewRun("data", {"stage": "data", "dataset": self.recipe.data.source}))

    def _pretraining(self, digest: str, stage: Stage, out: Path, reused_from: str | None = None) -> MlflowRun:
        self._open()
        if digest in self.seen or (digest in self.runs and stage.kind.network is None):
            return self.runs[digest]
        assert stage.kind.network is not None
        origin = stage.kind.network(stage.config)
        tags = {key: str(value) for key, value in origin._asdict().items() if value != ""} | {"digest": digest}
        if reused_from is not None:
            tags["reused_from"] = reused_from
        name = f"{origin.method} {origin.graph} seed {origin.seed}"
        params, first = dict(flat_items(stage.identity)), next(read_spool(out / SPOOL), None)
        began_ms = first.time_ms if first else None  # a training that is logged later keeps its times
        artifact = Store.of(out).reference(stage.digest)
        run = self._run(digest, NewRun(name, tags, params, inputs_of(stage, artifact, self.recipe), began_ms))
        self.seen.add(digest)
        return run

    def _run(self, key: str, new: NewRun) -> MlflowRun:
        client, experiment = self._open()
        if key not in self.runs:
            tag = "stage" if key == DATA else "digest"  # another process may have created it since
            found = client.search_runs([experiment], f"tags.{tag} = '{key}'", max_results=1)
            self.runs[key] = found[0] if found else self._create(new)
        run = self.runs[key] = client.get_run(self.runs[key].info.run_id)
        self.states.setdefault(key, run.info.status)
        if (new.params and not run.data.params) or (new.inputs and not run.inputs.dataset_inputs):
            self._describe(run, new)  # whoever created it was killed before
        return run

    def _create(self, new: NewRun) -> MlflowRun:
        client, experiment = self._open()
        run = client.create_run(experiment, new.began_ms, tags={**self.tags, **new.tags}, run_name=new.name)
        self._describe(run, new)
        return run

    def _describe(self, run: MlflowRun, new: NewRun) -> None:
        """Log what a run was given; what is there already is the same, and changes nothing."""
        from mlflow.entities import Param

        client = self._client()
        client.log_batch(run.info.run_id, params=[Param(each, value) for each, value in new.params.items()])
        if new.inputs:
            client.log_inputs(run.info.run_id, list(new.inputs))

    def _send(self, stage: Stage, out: Path) -> None:
        """Upload what is spooled of each metric beyond the last step that the run has of it.

        Each by itself: whoever was killed between two requests may have sent a step's loss and not its learning rate.
        """
        from mlflow.entities import Metric

        run_id, digest = self.runs[str(stage.digest)].info.run_id, str(stage.digest)
        client = self._client()
        points = list(read_spool(out / SPOOL))
        last = self.sent.pop(digest, None)  # until all is sent nobody knows how far it came
        if last is None:
            known = client.get_run(run_id).data.metrics.keys() & {name for point in points for name in point.metrics}
            last = {name: max(each.step for each in client.get_metric_history(run_id, name)) for name in known}
        fresh = [Metric(*each) for point in points for each in points_of(point) if point.step > last.get(each[0], -1)]
        for batch in batches_of(iter(fresh)):
            client.log_batch(run_id, metrics=batch)
            self.points += len(batch)
        self.sent[digest] = last | {each.key: each.step for each in fresh}
        if (notices := read_notices(out)) != self.runs[digest].data.tags.get(WARNING, ""):
            client.set_tag(run_id, WARNING, notices)
            self.runs[digest] = client.get_run(run_id)

    def _model(self, run: MlflowRun, stage: Stage, artifact: Artifact) -> str | None:
        """The logged model of the network that a stage made or judged; None where it is none."""
        from infra.tracking.models import find_model, log_model

        model = None
        if stage.kind is PRETRAIN and self.tracking.models:
            model = log_model(self._client(), run, artifact, self._files_at)
        elif stage.kind.judges:
            model = find_model(self._client(), run.info.experiment_id, str(stage.network))
        return None if model is None else str(model.model_id)

    def _log_files(self, run: MlflowRun, stage: Stage, made: Made) -> None:
        """A stage's files, and once the recipe and the versions that it was recorded with."""
        with TemporaryDirectory() as folder:
            uploads = list(uploads_of(stage, made, self.tracking, Path(folder)))
            if run.info.run_id not in self.described:
                for name, text in {RECIPE: recipe_yaml(self.recipe), VERSIONS: installed()}.items():
                    Path(folder, name).write_text(text, encoding="utf-8")
                    uploads.append(Upload(Path(folder, name), None))
            self._upload(run, uploads)
        self.described.add(run.info.run_id)

    def _upload(self, run: MlflowRun, uploads: Sequence[Upload]) -> None:
        """Log files, and list those that are tables."""
        for each in uploads:
            self._files_of(run).log_artifact(str(each.path), each.folder)
        if tables := tables_of(uploads):
            before = self._client().get_run(run.info.run_id).data.tags.get(TABLES, "")
            self._client().set_tag(run.info.run_id, TABLES, joined_tables(before, tables))

    def _files_of(self, run: MlflowRun) -> ArtifactRepository:
        return self._files_at(run.info.artifact_uri)

    def _files_at(self, location: str) -> ArtifactRepository:
        """Where files go: what a server of this STATE began goes on without it, in the same folder."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        place = urlsplit(location)
        if place.scheme == PROXIED and not self.uri.startswith("http"):
            return get_artifact_repository((self.artifacts.absolute() / place.path.lstrip("/")).as_uri())
        return get_artifact_repository(location, tracking_uri=self.uri)

    def _log_lineage(self, run: MlflowRun, stage: Stage, artifact: Artifact) -> None:
        """Log what a suite judged on, or where data come from, and what all outputs on the run were made of."""
        client, digest = self._client(), str(stage.digest)
        if stage.network not in {None, digest} and not stage.kind.judges:
            return
        if stage.network != digest and (inputs := inputs_of(stage, artifact, self.recipe)):
            client.log_inputs(run.info.run_id, inputs)
        tags = client.get_run(run.info.run_id).data.tags
        shown = [value for name, value in tags.items() if name.startswith("artifact.")]
        self._write(run, lineage_files(Store.of(artifact.path), [*dict.fromkeys((*shown, digest))]))

    def _write(self, run: MlflowRun, files: Mapping[str, bytes]) -> None:
        with TemporaryDirectory() as folder:
            for name, content in files.items():
                Path(folder, name).write_bytes(content)
                self._files_of(run).log_artifact(str(Path(folder, name)))
