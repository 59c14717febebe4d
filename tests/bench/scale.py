"""What one drawn scene costs, and captions, pictures, vectors and graph of recipe scenes-1m as its rows grow.

`make bench` goes up to 100,000 rows; `make bench-scale`, which is `python -m tests.bench.scale HOME [ROWS ...]`, up to
a million, and it takes what was measured in HOME as it is. Each stage runs as a job does, in one thread of a process of
its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table

from infra.ledger import Book
from infra.stage import commit
from tests.bench.measure import ROUNDS, Figure, spent, tell
from xclr.captions.scenes import captions
from xclr.images.scenes import draw_png
from xclr.job import FAILURE, PROGRESS
from xclr.pipeline import pipeline
from xclr.recipe import DataConfig, Recipe, load_recipe
from xclr.stage import Stage, Step
from xclr.store import Store, write_atomically

SIZES = (10_000, 30_000, 100_000)
LARGE = (*SIZES, 300_000, 1_000_000)
START = 500  # rows of a run that is taken off the others: most of its cost is that of starting
TESTS, SPLITS = 50, 3  # held-out pictures of a split, and how many such splits there are
BARS = {"captions": 1.1, "images": 1.1, "embeddings": 1.1, "graph": 1.6}  # of exponents
OF_DISTINCT = frozenset({"embeddings", "graph", "graph_report"})  # stages that work on distinct captions
DRAWN, SIDE, PICTURE_MS, CAPTION_US = 500, 64, 1.0, 100.0
REFRESH_S = 0.5
SCREEN = Console(stderr=True, width=130)


class Cost(NamedTuple):
    """What a stage took of data with so many rows; `items` are those that it worked on."""

    stage: str
    rows: int
    items: int
    cpu_s: float
    wall_s: float
    peak_mb: float


def figures() -> Iterator[Figure]:
    yield from drawing()
    with tempfile.TemporaryDirectory() as home:
        yield from growing(Path(home), SIZES)


def drawing(number: int = DRAWN) -> Iterator[Figure]:
    """A picture and a caption, each with its scene, in the mean of so many."""
    data = DataConfig(source="scenes", size=SIDE)
    works: tuple[Callable[[], object], ...] = (
        lambda: [draw_png(data, row) for row in range(number)],
        lambda: list(islice(captions(data), number)),
    )
    picture_s, caption_s = (statistics.median(spent(work) for _ in range(ROUNDS)) / number for work in works)
    yield Figure(f"scenes: a picture of {SIDE} pixels", 1e3 * picture_s, PICTURE_MS, 1.0, "CPU-ms")
    yield Figure("scenes: a caption", 1e6 * caption_s, CAPTION_US, 1.0, "CPU-us")


def growing(home: Path, sizes: Sequence[int]) -> Iterator[Figure]:
    """A table of what the stages took, then their exponents."""
    found = list(costs(home, (START, *sizes)))
    SCREEN.print(table(found))
    yield from exponents(found)


def exponents(found: Sequence[Cost]) -> Iterator[Figure]:
    """Of each stage that has two sizes to tell it by."""
    for stage, bar in BARS.items():
        points = grown([each for each in found if each.stage == stage])
        if len(points) > 1:
            name = f"scenes, {stage}: exponent of growth, up to {max(each.rows for each in found):,} rows"
            yield Figure(name, exponent(*zip(*points, strict=True)), 1.0, bar, "")


def costs(home: Path, sizes: Sequence[int], until: Step = "graph") -> Iterator[Cost]:
    """Of the stages up to a step, size after size; each is told as it comes."""
    store = Store(home)
    for rows in sizes:
        for stage in pipeline(recipe_of(rows), store).until(until):
            cost = cost_of(stage, rows, store)
            SCREEN.print(f"{stage.name}, {rows:,} rows: {cost.wall_s:.1f} s, {cost.peak_mb:.0f} MB")
            yield cost


def recipe_of(rows: int) -> Recipe:
    """scenes-1m with another number of rows."""
    return load_recipe("scenes-1m", [f"data.pictures={rows - SPLITS * TESTS}", f"data.tests={TESTS}"])


def cost_of(stage: Stage, rows: int, store: Store) -> Cost:
    """As it was measured in this HOME, or as it is now; half a stage is made again, or it would cost the other half."""
    artifact, note = store.reference(stage.digest), store.home / "measured" / f"{stage.digest}.json"
    if store.find(stage.digest) is None or not note.exists():
        shutil.rmtree(artifact.path, ignore_errors=True)
        note.parent.mkdir(parents=True, exist_ok=True)
        peak_mb = run(stage, store.begin(stage.digest), note.with_suffix(".stage"), f"{stage.name}, {rows:,} rows")
        commit(store, Book(store.home), stage, artifact.path)
        write_atomically(note, json.dumps(peak_mb))
    cost = store.manifest(artifact).cost
    distinct = stage.kind.name in OF_DISTINCT
    items = int(store.manifest(stage.inputs["captions"]).stats["distinct"]) if distinct else rows
    return Cost(stage.kind.name, rows, items, cost.cpu_s, cost.wall_s, json.loads(note.read_text()))


def run(stage: Stage, out: Path, description: Path, title: str) -> float:
    """Make a stage in a process of its own; its peak memory in MB. Raises RuntimeError with what its job said."""
    description.write_text(stage.to_json())
    command = [sys.executable, "-m", "tests.bench.alone", str(description), str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (
        description.with_suffix(".log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as child,
    ):
        said = watched(child, out / PROGRESS, title)
    if child.returncode:
        raise RuntimeError(f"{title}: {(out / FAILURE).read_text() if (out / FAILURE).exists() else log.name}")
    return float(said.split()[-1])


def watched(child: subprocess.Popen[str], told: Path, title: str) -> str:
    """What a process printed, once it ended; a bar shows how far it is."""
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=SCREEN, transient=True) as bars:
        bar = bars.add_task(title, total=None)
        while True:
            with suppress(subprocess.TimeoutExpired):
                return child.communicate(timeout=REFRESH_S)[0]
            with suppress(FileNotFoundError):
                seen = json.loads(told.read_text())
                bars.update(bar, completed=seen["done"], total=seen["total"])


def grown(found: Sequence[Cost]) -> list[tuple[int, float]]:
    """Rows that a stage worked on and its CPU seconds, of the largest decade of rows; what the smallest run has is off.

    Runs that took less than twice as long as that are left out: they tell of the start.
    """
    start, *others = sorted(found, key=lambda each: each.rows)
    told = [each for each in others if each.cpu_s >= 2 * start.cpu_s and 10 * each.rows >= others[-1].rows]
    return [(each.items - start.items, each.cpu_s - start.cpu_s) for each in told]


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of the line through logs, by least squares: 1 is linear, 2 quadratic."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def table(found: Sequence[Cost]) -> Table:
    """A line for each stage and size, in Markdown."""
    shown = Table("stage", "rows", "works on", "CPU s", "wall s", "of them a second", "peak MB", box=box.MARKDOWN)
    stages = list(dict.fromkeys(each.stage for each in found))
    for each in sorted(found, key=lambda cost: stages.index(cost.stage)):
        numbers = (f"{each.rows:,}", f"{each.items:,}", f"{each.cpu_s:.1f}", f"{each.wall_s:.1f}")
        shown.add_row(each.stage, *numbers, f"{each.items / each.wall_s:,.0f}", f"{each.peak_mb:,.0f}")
    return shown


def main(home: Path, *sizes: int) -> None:
    tell(growing(home, sizes or LARGE))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
