"""Finished runs without Prefect or jobs: every stage in this process, and the record that a run leaves."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from infra.executors.executor import STAGE
from infra.home.runs import RunRecord, new_record, write_record
from infra.ledger import Book, Entry, JobState
from infra.processes import now, this_process
from tests.kit.home import one_thread, write_vectors
from tests.kit.pictures import encode
from tests.kit.recipes import TINY
from tests.kit.stages import commit
from xclr.artifact import Artifact
from xclr.job import FAILURE, Failure
from xclr.pipeline import KINDS, pipeline
from xclr.recipe import Recipe
from xclr.stage import Stage, Step
from xclr.store import Store, write_atomically
from xclr.sweep.layout import Ref, layout
from xclr.sweep.spec import Sweep

COLOURS = ("crimson", "seagreen", "royalblue", "goldenrod")
OWN = TINY | {
    "name": "own",
    "objectives": ["clip", "xclr"],
    "train": TINY["train"] | {"batch_size": 16},
}


def finish(home: Path, recipe: Recipe, run: str | None = None) -> RunRecord:
    """Run a recipe's stages, with unit vectors in place of a text model's, and write its record."""
    planned = pipeline(recipe, Store(home))
    made = _make(home, planned)[-1]
    ended = {"run": run or f"{recipe.name}-1", "state": "completed", "scores": str(made.digest)}
    record = new_record(recipe, [stage.digest for stage in planned]).model_copy(update=ended)
    write_atomically(home / "runs" / f"{record.run}.json", record.model_dump_json())
    return record


def begin(home: Path, recipe: Recipe, until: Step = "graph") -> Path:
    """Make a recipe's stages up to a step in the same way, for a run to find; returns `home`."""
    _make(home, pipeline(recipe, Store(home)).until(until))
    return home


def _make(home: Path, stages: Iterable[Stage]) -> list[Artifact]:
    store = Store(home)
    store.check_writable()
    with one_thread():
        return [store.find(stage.digest) or _made(store, stage) for stage in stages]


def _made(store: Store, stage: Stage) -> Artifact:
    made = commit(store, stage, _runner(stage.kind.name))
    write_atomically(made.path / STAGE, stage.to_json())
    return made


def finish_sweep(home: Path, sweep: Sweep, leave_out: Collection[str] = ()) -> RunRecord:
    """Run a sweep's stages but those of the digests to leave out and what reads them, and write its record."""
    store = Store(home)
    store.check_writable()
    laid = layout(sweep, store)
    with one_thread():
        for stage in laid.stages:
            ready = all(store.find(each.digest) is not None for each in stage.inputs.values())
            if ready and stage.digest not in leave_out and store.find(stage.digest) is None:
                commit(store, stage, _runner(stage.kind.name))
    ended = {"run": f"{sweep.name}-1", "state": "completed", "sweep": sweep, "cells": laid.cells}
    record = new_record(sweep.recipe, [stage.digest for stage in laid.stages]).model_copy(update=ended)
    write_record(home, record)
    return record


def fail(home: Path, record: RunRecord, ref: Ref, reason: str, job: str = "slurm/7_1") -> None:
    """Leave what a job leaves that could not make a stage of a run."""
    out = Store(home).begin(ref.output)
    write_atomically(out / FAILURE, Failure(error="DataError", message=reason, remedy="").model_dump_json())
    own = {"digest": ref.digest, "kind": ref.kind, "stage": ref.name, "run": record.run, "owner": this_process()}
    entry = Entry(**own, attempt=1, claimed=now(), job=job, state=JobState.FAILED, ended=now())
    assert Book(home).claim(entry)


def _runner(kind: str):
    return write_vectors if kind == "embeddings" else importlib.import_module(KINDS[kind].run).run


def own_recipe(folder: Path, caption: str, **keys: object) -> Recipe:
    """A recipe over 80 rendered pictures of four colours in two shapes, the colour their label."""
    pictures, kinds = zip(*[_picture(index) for index in range(80)], strict=True)
    captions = [f"{caption} {kind} {index}" for index, kind in enumerate(kinds)]
    folder.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": picture, "path": f"{index}.png"} for index, picture in enumerate(pictures)]
    pq.write_table(pa.table({"caption": captions, "image": images, "kind": kinds}), folder / "own.parquet")
    data = {"source": "table", "path": str(folder / "own.parquet"), "label_column": "kind"}
    return Recipe.model_validate(OWN | {"data": data} | keys)


def _picture(index: int) -> tuple[bytes, str]:
    colour = COLOURS[index % 4]
    picture = Image.new("RGB", (40, 40), "white")
    pen = ImageDraw.Draw(picture)
    (pen.ellipse if index % 8 < 4 else pen.rectangle)((4, 4, 20 + index % 16, 30), fill=colour)
    return encode(picture), colour
