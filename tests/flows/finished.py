"""Finished runs without Prefect or jobs: every stage in this process, and the record that a run leaves."""

from __future__ import annotations

import importlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from infra.runs import RunRecord, new_record
from tests.images.pictures import encode
from tests.infra.conftest import TINY
from tests.training.home import commit, one_thread, write_vectors
from xclr import stages
from xclr.job import RUNNERS
from xclr.recipe import Recipe
from xclr.store import Store, write_atomically

COLOURS = ("crimson", "seagreen", "royalblue", "goldenrod")
OWN = TINY | {
    "name": "own",
    "objectives": ["clip", "xclr"],
    "train": TINY["train"] | {"batch_size": 16},
}


def finish(home: Path, recipe: Recipe, run: str | None = None) -> RunRecord:
    """Run a recipe's stages, with unit vectors in place of a text model's, and write its record."""
    store = Store(home)
    store.check_writable()
    made, planned = None, stages.pipeline(recipe, store)
    with one_thread():
        for stage in planned:
            made = store.find(stage.digest)
            if made is None:
                made = commit(store, stage, _runner(stage.kind))
    ended = {"run": run or f"{recipe.name}-1", "state": "completed", "scores": str(made.digest)}
    record = new_record(recipe, [stage.digest for stage in planned]).model_copy(update=ended)
    write_atomically(home / "runs" / f"{record.run}.json", record.model_dump_json())
    return record


def _runner(kind: str):
    return write_vectors if kind == "embeddings" else importlib.import_module(RUNNERS[kind]).run


def own_recipe(folder: Path, caption: str, **keys: object) -> Recipe:
    """A recipe over 80 rendered pictures of four colours in two shapes, the colour their label."""
    pictures, kinds = zip(*[_picture(index) for index in range(80)], strict=True)
    captions = [f"{caption} {kind} {index}" for index, kind in enumerate(kinds)]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"caption": captions, "image": pictures, "kind": kinds}), folder / "own.parquet")
    data = {"source": "table", "path": str(folder / "own.parquet"), "label_column": "kind"}
    return Recipe.model_validate(OWN | {"data": data} | keys)


def _picture(index: int) -> tuple[bytes, str]:
    colour = COLOURS[index % 4]
    picture = Image.new("RGB", (40, 40), "white")
    pen = ImageDraw.Draw(picture)
    (pen.ellipse if index % 8 < 4 else pen.rectangle)((4, 4, 20 + index % 16, 30), fill=colour)
    return encode(picture), colour
