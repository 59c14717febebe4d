"""The nearest-neighbour sheet: pictures, and what each method finds most like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xclr.captions.text import shortened
from xclr.errors import StoreError
from xclr.evaluation.data import ROWS, Ints, load_labels
from xclr.evaluation.neighbours import POOL, Neighbours, choose_queries, load_pool, nearest
from xclr.images import read_pictures
from xclr.report.html import thumbnail
from xclr.report.trainings import Method, Training
from xclr.store import Store

QUERIES, NEIGHBOURS = 10, 6
SIDE = 64  # of a thumbnail, pixels


@dataclass(frozen=True)
class Tile:
    """A thumbnail: `same` tells whether it has the class of the picture asked for, None where classes are unknown."""

    uri: str
    caption: str
    same: bool | None = None
    cosine: float = 1.0


@dataclass(frozen=True)
class Question:
    """A picture and the pictures nearest to it, method by method."""

    tile: Tile
    answers: tuple[tuple[Method, tuple[Tile, ...]], ...]


@dataclass(frozen=True)
class Sheet:
    """Nearest neighbours of a few pictures; `about` says what was searched."""

    questions: tuple[Question, ...]
    about: str

    @property
    def labelled(self) -> bool:
        """True when some pictures have classes."""
        answers = (tiles for question in self.questions for _, tiles in question.answers)
        return any(tile.same is not None for tiles in answers for tile in tiles)


def sheet_of(trainings: Sequence[Training], store: Store) -> Sheet:
    """The sheet over the features of the first seed, on the pictures of the first training.

    Raises StoreError or DataError when features or pictures are gone or damaged.
    """
    first = [each for each in trainings if each.seed == min(other.seed for other in trainings)]
    there = [each for each in first if each.images == first[0].images and store.find(each.features.digest) is not None]
    if not there:
        raise StoreError("the features of these runs are not in the store", "run the recipe again")
    for artifact in (there[0].captions, there[0].images):
        if store.find(artifact.digest) is None:
            raise StoreError(f"the {artifact.kind} of these runs are not in the store", "run the recipe again")
    for artifact in (there[0].captions, *(each.features for each in there)):
        store.check(artifact)
    shown = {each.method for each in there}
    lacking = dict.fromkeys(" ".join(each.method) for each in first if each.method not in shown)
    return _sheet(there, f" Without {', '.join(lacking)}: no features, or other pictures." if lacking else "")


def _sheet(trainings: Sequence[Training], remark: str) -> Sheet:
    first = trainings[0]
    labels = load_labels(first.captions.path)
    rows = np.asarray(np.load(first.features.path / ROWS), dtype=np.int64)
    if len(rows) < 2:
        raise StoreError(f"{len(rows)} pictures have features", "give two or more")
    split, queries = choose_queries(rows, labels.split, labels.target, QUERIES)
    found = {each.method: nearest(load_pool(each.features.path, queries), queries, NEIGHBOURS) for each in trainings}
    tiles = _tiles(first, np.unique(np.concatenate([queries, *(each.rows.ravel() for each in found.values())])))
    questions = [_question(i, row, found, tiles, labels.target) for i, row in enumerate(queries.tolist())]
    asked = f"pictures of the held-out split “{split}”" if split else "of the last pictures (none was held out)"
    searched = f"all {len(rows):,}" if len(rows) <= POOL else f"{POOL:,} evenly spaced ones of {len(rows):,}"
    about = (
        f"{len(queries)} {asked}, and of {searched} pictures the {NEIGHBOURS} whose frozen features have the largest"
    )
    classes = " Classes are Unicode's subgroups." if any(labels.tags) else ""
    return Sheet(tuple(questions), f"{about} cosine with theirs, seed {first.seed}.{classes}{remark}")


def _question(
    index: int, query: int, found: Mapping[Method, Neighbours], tiles: Mapping[int, Tile], target: Ints
) -> Question:
    def tile(row: int, cosine: float) -> Tile:
        known = min(target[query], target[row]) >= 0
        return Tile(tiles[row].uri, tiles[row].caption, bool(target[query] == target[row]) if known else None, cosine)

    answers = [
        (method, tuple(map(tile, near.rows[index].tolist(), near.cosines[index].tolist())))
        for method, near in found.items()
    ]
    return Question(tiles[query], tuple(answers))


def _tiles(training: Training, rows: Ints) -> dict[int, Tile]:
    """Thumbnail and caption of sorted rows."""
    table = pq.read_table(training.captions.path / "captions.parquet", columns=["row_id", "caption"])
    captions = table.filter(pc.is_in(table["row_id"], pa.array(rows))).sort_by("row_id")["caption"].to_pylist()
    pictures = read_pictures(training.images.path, rows, SIDE)
    return {
        row: Tile(thumbnail(picture), shortened(caption))
        for row, picture, caption in zip(rows.tolist(), pictures, captions, strict=True)
    }
