"""What a run over drawn scenes is trained on: the first pictures, drawn again, and what is said of them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

from xclr.captions.scenes import caption, scene, splits
from xclr.files import TRAIN
from xclr.recipe import SOURCES, DataConfig, Recipe
from xclr.report.html import webp
from xclr.report.sheet import SIDE, Tile

SHOWN = 96  # pictures


@dataclass(frozen=True)
class Scenes:
    """The first training pictures of drawn data, each with its captions; `about` says of which data."""

    tiles: tuple[Tile, ...]
    about: str


def scenes_of(recipes: Iterable[Recipe]) -> list[Scenes]:
    """One for each of the data that recipes train on and that are drawn."""
    drawn: dict[DataConfig, list[str]] = {}
    for recipe in recipes:
        if SOURCES[recipe.data.source].drawn:
            drawn.setdefault(recipe.data, []).append(recipe.name)
    return [
        Scenes(
            tuple(_tile(data, picture) for picture in training_pictures(data)),
            f"{min(SHOWN, data.pictures)} of the {data.pictures:,} training pictures of "
            f"{' and '.join(dict.fromkeys(names))}, {data.size} pixels a side, and what captions say of them.",
        )
        for data, names in drawn.items()
    ]


def training_pictures(data: DataConfig) -> range:
    """The numbers of the first SHOWN pictures that are trained on: those after the held-out splits."""
    first = sum(count for split, count in splits(data) if split != TRAIN)
    return range(first, first + min(SHOWN, data.pictures))


def _tile(data: DataConfig, picture: int) -> Tile:
    from PIL import Image

    from xclr.images.scenes import draw_png  # brings OpenCV

    shown = Image.open(io.BytesIO(draw_png(data, picture)))
    shown.thumbnail((SIDE, SIDE))
    rows = range(picture * data.captions_each, (picture + 1) * data.captions_each)
    said = dict.fromkeys(caption(data, row, scene(data, picture))[0] for row in rows)
    return Tile(webp(shown), " · ".join(said))
