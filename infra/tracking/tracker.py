"""MLflow: one experiment a recipe, one run a pretraining; everything is logged once, however often it is run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from infra.cluster import Tracking
from infra.progress import Advance, read_progress
from infra.tracking.connection import TABLES, Connection
from infra.tracking.curves import Curves
from infra.tracking.described import (
    NOTE,
    OURS,
    SEEDS,
    NewRun,
    data_note,
    data_tags,
    network_note,
    network_params,
    network_tags,
    origin_of,
)
from infra.tracking.files import Pages, Upload, page_uploads, uploads_of
from infra.tracking.inputs import inputs_of, lineage_files
from infra.tracking.links import DATA_OF, compare_page, run_page, runs_page, ui_address
from infra.tracking.metrics import (
    Made,
    batches_of,
    began_ms,
    costs_of,
    made_ms,
    mark_of,
    metrics_of,
    time_of,
    with_model,
    write_table,
)
from infra.tracking.seeds import record_seeds
from infra.tracking.versions import VERSIONS, installed
from infra.tracking.views import record_view
from xclr.artifact import Artifact
from xclr.recipe import Recipe, recipe_yaml
from xclr.stage import Stage, network_name
from xclr.store import Store
from xclr.sweep.spec import Values, recipe_at
from xclr.training.spool import SPOOL, read_spool
from xclr.training.stages import PRETRAIN

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Metric
    from mlflow.entities import Run as MlflowRun

FOLLOW_EVERY_S = 6.0  # between two uploads of a running stage's metrics
SWEPT = "sweep_run"  # tag of a sweep's own run
PAGES = "pages"  # tag: the digest of the scores that a run's pages show
TABLE, RECIPE = "table.json", "recipe.yaml"
DATA = "data"  # the stage, and behind a recipe's name the experiment, of what becomes of its data
RunState = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]  # of MLflow


class SweepSummary(NamedTuple):
    """What came of a sweep: a table of its cells, numbers and tags, files by name; how many are done, its state."""

    done: int
    state: RunState
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    rows: Sequence[Mapping[str, Any]]
    files: Mapping[str, bytes]


class Ending(NamedTuple):
    """How a run of MLflow stands, and since when it is over."""

    state: str
    ended_ms: int | None


def sweep_key(name: str) -> str:
    """What a sweep's own run is known by."""
    return f"sweep {name}"


class Tracker:
    """Writes stages to one experiment of an MLflow store."""

    def __init__(
        self, uri: str, recipe: Recipe, artifacts: Path, tags: Mapping[str, str], tracking: Tracking | None = None
    ) -> None:
        self.mlflow, self.recipe, self.tags = Connection(uri, artifacts), recipe, dict(tags)
        self.tracking = tracking or Tracking()
        self.lock, self.curves = self.mlflow.lock, Curves(self.mlflow)
        self.points: Mapping[str, Values] = {}  # of a sweep's networks, by digest: where their recipe is another
        self.followed: dict[str, float] = {}  # when a running stage was last looked at, by digest
        self.forget()

    def forget(self) -> None:
        """Ask MLflow anew for all that was known of it: it may have come back with less, or another."""
        self.mlflow.forget()
        self.curves.forget()
        self.opened: str | None = None  # the experiment
        self.runs: dict[str, MlflowRun] = {}  # by our digest, or DATA
        self.endings: dict[str, Ending] = {}  # of these runs, as we know or left them
        self.seen: set[str] = set()  # digests whose run is known to have what it was given
        self.described: set[str] = set()  # ids of MLflow runs that have the recipe and the versions

    def record(self, stage: Stage, made: Made) -> bool:
        """Log a finished stage; False where it is logged already."""
        artifact, manifest = made.artifact, made.manifest
        with self.lock:
            owner = stage.network
            run = self._network_run(owner, stage, artifact.path, made) if owner else self._data_run(made)
            told, shown = {mark_of(stage): str(stage.digest), time_of(stage): manifest.created}, run.data.tags
            fresh = not told.items() <= {time_of(stage): manifest.created, **shown}.items()  # older runs know no time
            if fresh:
                self._log(run, stage, made, told)
            if owner in {None, stage.digest}:
                self.end(owner or DATA, "FINISHED", max(made_ms(manifest), run.info.start_time))
            return fresh

    def _log(self, run: MlflowRun, stage: Stage, made: Made, told: Mapping[str, str]) -> None:
        """Log a stage to its run, and last the tags that say so."""
        from mlflow.entities import RunTag

        client, run_id, artifact = self.mlflow.client, run.info.run_id, made.artifact
        if stage.kind.network and (artifact.path / SPOOL).exists():
            self._send(stage, artifact.path)
        scored = with_model(metrics_of(stage, artifact, made.manifest), self._model(run, stage, artifact))
        for batch in batches_of(chain(scored, costs_of(stage, made))):
            client.log_batch(run_id, metrics=batch)
        self._log_files(run, stage, made)
        self._log_lineage(run, stage, artifact)
        client.log_batch(run_id, tags=[RunTag(*each) for each in told.items()])

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
                self._network_run(str(stage.digest), stage, out)
                self._send(stage, out)

    def end(self, key: str, state: RunState, ended_ms: int | None = None) -> None:
        """Bring the run of a network's digest, of DATA or of a sweep to a state, where there is one and it has another.

        A run goes on after any end: what failed may be made later, and then ends well. It ends with what ends last.
        """
        with self.lock:
            self._experiment()
            if key not in self.runs:
                return
            info = self.runs[key].info
            known = self.endings.setdefault(key, Ending(info.status, info.end_time))
            if known.state == state and (ended_ms is None or ended_ms <= (known.ended_ms or 0)):
                return
            if state == "RUNNING":
                self.mlflow.client.update_run(info.run_id, state)
            else:
                self.mlflow.client.set_terminated(info.run_id, state, ended_ms)
            self.endings[key] = Ending(state, ended_ms)

    def has(self, key: str) -> bool:
        """True where a network's digest, DATA or a sweep has a run."""
        self._experiment()
        return key in self.runs

    def join_sweep(self, sweep: str, cells: Mapping[str, str]) -> None:
        """Tag the runs of a sweep's networks, by digest, with its name and their values; what is not there is left out.

        A run is in as many sweeps as name it: tag `sweep` holds all their names, `sweep.<name>` the values.
        """
        with self.lock:
            self._experiment()
            for digest, values in cells.items():
                if digest in self.runs:
                    run = self.mlflow.client.get_run(self.runs[digest].info.run_id)
                    names = {*filter(None, run.data.tags.get("sweep", "").split(",")), sweep}
                    self.mlflow.set_tags(run, {"sweep": ",".join(sorted(names)), f"sweep.{sweep}": values})

    def conclude(self) -> None:
        """Once networks were recorded: a run over the seeds of each method that has several, and how all are shown."""
        with self.lock:
            if self.seen:
                experiment = self._experiment()
                tagged = (self.runs[each].data.tags.get(SEEDS) for each in self.seen)
                for group in dict.fromkeys(filter(None, tagged)):
                    record_seeds(self.mlflow, experiment, group, self.tags)
                record_view(self.mlflow, experiment, self.seen)

    def record_sweep(self, name: str, told: SweepSummary) -> None:
        """Log what came of a sweep to its own run, which is found again when the sweep goes on or is extended."""
        from mlflow.entities import RunTag

        with self.lock:
            experiment = self._experiment()
            found = self.mlflow.runs(experiment, f"tags.{SWEPT} = '{name}'")
            tags = {"stage": "sweep", SWEPT: name, TABLES: json.dumps([{"path": TABLE, "type": "table"}]), **told.tags}
            run = found[0] if found else self.mlflow.create(experiment, NewRun(f"sweep {name}", tags), self.tags)
            tagged = [RunTag(*each) for each in tags.items()]
            self.mlflow.client.log_batch(run.info.run_id, metrics=list(self._news(run, told)), tags=tagged)
            self.mlflow.write(run, {TABLE: json.dumps(write_table(told.rows)).encode(), **told.files})
            self.runs[sweep_key(name)] = run
            self.end(sweep_key(name), told.state)

    def record_pages(self, digests: Iterable[str], pages: Pages) -> None:
        """Give the runs of networks the pages of a run, but those that show its scores already."""
        with self.lock, TemporaryDirectory() as folder:
            self._experiment()
            uploads = list(page_uploads(pages, self.tracking, Path(folder)))
            for run in (self.runs[each] for each in digests if each in self.runs):
                fresh = self.mlflow.client.get_run(run.info.run_id)
                if fresh.data.tags.get(PAGES) != pages.scores:
                    self.mlflow.upload(run, uploads)
                    self.mlflow.set_tags(fresh, {PAGES: pages.scores})

    def model(self, checkpoint: Artifact) -> LoggedModel | None:
        """A pretraining's logged model, made unless it is there; None without a run, or where none can be made."""
        from infra.tracking.models import log_model

        with self.lock:
            self._experiment()
            run = self.runs.get(str(checkpoint.digest))
            return None if run is None else log_model(self.mlflow.client, run, checkpoint, self.mlflow.files_at)

    def _news(self, run: MlflowRun, told: SweepSummary) -> Iterator[Metric]:
        """A sweep's numbers that its run lacks, over the cells done; MLflow shows the one of the highest step."""
        from mlflow.entities import Metric

        when = int(time.time() * 1000)
        for name, value in told.metrics.items():
            history = self.mlflow.client.get_metric_history(run.info.run_id, name)
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
        self.mlflow.client.log_batch(self._data_run().info.run_id, metrics=metrics)

    def experiment_url(self) -> str | None:
        """The recipe's experiment in the MLflow UI; None where there is no server."""
        base = ui_address(self.mlflow.uri)
        return None if base is None else runs_page(base, self._experiment())

    def run_url(self, digest: str) -> str | None:
        """A pretraining's run in the MLflow UI; None where there is no server or no such run."""
        base, experiment = ui_address(self.mlflow.uri), self._experiment()
        return run_page(base, experiment, self.runs[digest].info.run_id) if base and digest in self.runs else None

    def compare_url(self, digests: Sequence[str]) -> str | None:
        """Pretrainings side by side in the MLflow UI; None where there is no server or are no two runs."""
        base, experiment = ui_address(self.mlflow.uri), self._experiment()
        runs = [self.runs[each].info.run_id for each in digests if each in self.runs]
        return compare_page(base, experiment, runs) if base and len(runs) > 1 else None

    def _experiment(self) -> str:
        """The id of the recipe's experiment; the first time its runs become known."""
        if self.opened is None:
            experiment = self.mlflow.experiment(self.recipe.name)
            for run in [*self.mlflow.runs_of(f"{self.recipe.name} {DATA}"), *self.mlflow.runs(experiment)]:
                sweep = sweep_key(run.data.tags[SWEPT]) if SWEPT in run.data.tags else ""
                self.runs[sweep or run.data.tags.get("digest") or run.data.tags.get("stage", "")] = run
            self.opened = experiment
        return self.opened

    def _data_run(self, made: Made | None = None) -> MlflowRun:
        """The run of the recipe's data, in an experiment of its own; where an older one is among the networks, that."""
        own = self._experiment()
        began = began_ms(made.manifest) if made else None
        tags = {"stage": DATA, NOTE: data_note(self.recipe), **data_tags(self.recipe)}
        new = NewRun(DATA, tags, began_ms=began)
        if DATA in self.runs:
            return self._run(DATA, new, own)
        return self._run(DATA, new, self.mlflow.experiment(f"{self.recipe.name} {DATA}", {DATA_OF: self.recipe.name}))

    def _recipe_of(self, network: str | None) -> Recipe:
        """The recipe, at the values of a sweep's cell for its network."""
        values = self.points.get(str(network))
        return recipe_at(self.recipe, values) if values else self.recipe

    def _network_run(self, digest: str, stage: Stage, out: Path, made: Made | None = None) -> MlflowRun:
        experiment = self._experiment()
        if digest in self.seen or (digest in self.runs and stage.kind.network is None):
            return self.runs[digest]
        origin, first = origin_of(stage), next(read_spool(out / SPOOL), None)
        recipe = self._recipe_of(digest)
        tags = network_tags(stage, recipe) | {NOTE: network_note(stage, out, recipe)}
        if made is not None and made.reused_from is not None:
            tags |= {"reused_from": made.reused_from, OURS: made.reused_from}
        began = began_ms(made.manifest, first) if made else first and first.time_ms  # logged later it keeps its times
        name = network_name(origin.method, origin.graph, origin.seed)
        inputs = inputs_of(stage, Store.of(out).reference(stage.digest), recipe)
        run = self._run(digest, NewRun(name, tags, network_params(stage), inputs, began), experiment)
        self.seen.add(digest)
        return run

    def _run(self, key: str, new: NewRun, experiment: str) -> MlflowRun:
        if key not in self.runs:
            tag = "stage" if key == DATA else "digest"  # another process may have created it since
            found = self.mlflow.runs(experiment, f"tags.{tag} = '{key}'")
            self.runs[key] = found[0] if found else self.mlflow.create(experiment, new, self.tags)
        run = self.runs[key] = self.mlflow.client.get_run(self.runs[key].info.run_id)
        self.endings.setdefault(key, Ending(run.info.status, run.info.end_time))
        if (new.params and not run.data.params) or (new.inputs and not run.inputs.dataset_inputs):
            self.mlflow.describe(run, new)  # whoever created it was killed before
        if SEEDS in new.tags and SEEDS not in run.data.tags:  # it is of before there were any
            self.mlflow.set_tags(run, {SEEDS: new.tags[SEEDS]})
            run = self.runs[key] = self.mlflow.client.get_run(run.info.run_id)
        return run

    def _send(self, stage: Stage, out: Path) -> None:
        """Upload what a training has spooled, and what is seen where it does not learn."""
        digest = str(stage.digest)
        self.curves.send(self.runs[digest], out)
        if self.curves.warn(self.runs[digest], out):
            self.runs[digest] = self.mlflow.client.get_run(self.runs[digest].info.run_id)

    def _model(self, run: MlflowRun, stage: Stage, artifact: Artifact) -> str | None:
        """The logged model of the network that a stage made or judged; None where it is none."""
        from infra.tracking.models import find_model, log_model

        client, model = self.mlflow.client, None
        if stage.kind is PRETRAIN and self.tracking.models:
            model = log_model(client, run, artifact, self.mlflow.files_at)
        elif stage.kind.judges:
            model = find_model(client, run.info.experiment_id, str(stage.network))
        return None if model is None else str(model.model_id)

    def _log_files(self, run: MlflowRun, stage: Stage, made: Made) -> None:
        """A stage's files, and once the recipe and the versions that it was recorded with."""
        with TemporaryDirectory() as folder:
            uploads = list(uploads_of(stage, made, self.tracking, Path(folder)))
            if run.info.run_id not in self.described:
                for name, text in {RECIPE: recipe_yaml(self._recipe_of(stage.network)), VERSIONS: installed()}.items():
                    Path(folder, name).write_text(text, encoding="utf-8")
                    uploads.append(Upload(Path(folder, name), None))
            self.mlflow.upload(run, uploads)
        self.described.add(run.info.run_id)

    def _log_lineage(self, run: MlflowRun, stage: Stage, artifact: Artifact) -> None:
        """Log what a suite judged on, or where data come from, and what all outputs on the run were made of."""
        client, digest = self.mlflow.client, str(stage.digest)
        if stage.network not in {None, digest} and not stage.kind.judges:
            return
        if stage.network != digest and (inputs := inputs_of(stage, artifact, self._recipe_of(stage.network))):
            client.log_inputs(run.info.run_id, inputs)
        tags = client.get_run(run.info.run_id).data.tags
        shown = [value for name, value in tags.items() if name.startswith("artifact.")]
        self.mlflow.write(run, lineage_files(Store.of(artifact.path), [*dict.fromkeys((*shown, digest))]))
