"""Drawn scenes: the pixels of a row, a function of the seed and its number alone."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xclr.captions.scenes import PIXELS, Scene, generator, scene
from xclr.recipe import DataConfig
from xclr.recipe.scenes import FACTORS

Floats = NDArray[np.float32]
SUBPIXELS = 4  # bits of a corner's place
RGB = {
    "red": (220, 40, 40), "orange": (240, 140, 30), "yellow": (240, 220, 40), "green": (50, 170, 60),
    "blue": (50, 90, 220), "purple": (140, 60, 190), "pink": (240, 130, 180), "white": (245, 245, 245),
    "black": (25, 25, 25), "brown": (130, 80, 40),
}  # fmt: skip
GROUND = {
    "sand": (225, 200, 150), "grass": (80, 150, 60), "water": (60, 120, 180), "snow": (235, 240, 245),
    "brick": (165, 80, 60), "wood": (150, 105, 65), "night sky": (15, 15, 45), "gravel": (130, 130, 130),
    "leaves": (60, 100, 40), "clouds": (150, 190, 235),
}  # fmt: skip
GRAIN = {"sand": 8.0, "snow": 5.0, "gravel": 30.0}
BLOBS = {"leaves": 35.0, "clouds": 12.0}
MORTAR, STARS = 190.0, 40
COMPRESSION = 1  # of zlib: noise does not compress


def draw_png(data: DataConfig, picture: int) -> bytes:
    """The picture of a scene as a PNG."""
    import cv2

    pixels = draw(scene(data, picture), data.size, generator(data.seed, PIXELS, picture))
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    return cv2.imencode(".png", bgr, (cv2.IMWRITE_PNG_COMPRESSION, COMPRESSION))[1].tobytes()


def draw(shown: Scene, size: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """A scene as uint8 [size, size, 3] RGB: its object, with soft edges, before its place."""
    whole = _place(FACTORS["place"][shown.place], size, random)
    outer = shown.radius * size
    centre = size / 2 + random.uniform(-0.1, 0.1, 2) * size
    covered = _mask(FACTORS["kind"][shown.kind], size, outer, shown.turn, centre)
    whole += (_surface(shown, size, random) - whole) * covered
    return np.asarray(np.rint(whole).clip(0, 255), dtype=np.uint8)


@cache
def _grid(size: int) -> tuple[Floats, Floats]:
    """Rows [size, 1] and columns [1, size] in 64ths of the side, so that patterns look the same at any size."""
    steps = np.arange(size, dtype=np.float32) * np.float32(64 / size)
    return steps[:, None], steps[None, :]


def _place(name: str, size: int, random: np.random.Generator) -> Floats:
    """The background, [size, size, 3]."""
    colour = (np.array(GROUND[name]) + random.normal(0, 12, 3)) * random.uniform(0.85, 1.15)
    ground = np.empty((size, size, 3), dtype=np.float32)
    ground[:] = colour.astype(np.float32)
    rows, columns = _grid(size)
    if name in GRAIN:
        ground += _noise(size, GRAIN[name], random)
    elif name in BLOBS:
        import cv2

        coarse = random.standard_normal((9, 9), dtype=np.float32) * BLOBS[name]
        ground += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
        ground += _noise(size, BLOBS[name] / 4, random)
    elif name == "grass":
        ground += random.standard_normal((1, size, 1), dtype=np.float32) * np.float32(18) + _noise(size, 9, random)
    elif name == "water":
        long, short, phase = (np.float32(random.uniform(*ends)) for ends in ((2, 4), (5, 9), (0, 6)))
        ground += (14 * np.sin(rows / long + np.sin(columns / short) * 1.5 + phase))[..., None]
    elif name == "wood":
        ground += (10 * np.sin(rows / np.float32(1.3) + np.sin(columns / 9) * 2))[..., None]
        ground[(rows % random.integers(9, 14) < 1.2)[:, 0]] *= 0.55
    elif name == "brick":
        high, wide = random.integers(6, 10), random.integers(12, 18)
        shifted = columns + (rows // high % 2) * (wide // 2)
        ground += _noise(size, 4, random) + random.standard_normal((size, 1, 1), dtype=np.float32) * np.float32(6)
        ground[(rows % high < 1.5) | (shifted % wide < 1.5)] = MORTAR
    else:  # the night sky
        ground += _noise(size, 6, random)
        there = random.integers(0, size, (2, STARS))
        ground[there[0], there[1]] = random.uniform(140, 255, (STARS, 1))
    return ground


def _noise(size: int, deviation: float, random: np.random.Generator) -> Floats:
    """Grey noise, [size, size, 1]."""
    return random.standard_normal((size, size, 1), dtype=np.float32) * np.float32(deviation)


def _surface(shown: Scene, size: int, random: np.random.Generator) -> Floats:
    """The object's colour and texture, as if it filled the picture: [size, size, 3], or [3] where it is plain."""
    colour = (np.array(RGB[FACTORS["colour"][shown.colour]]) + random.normal(0, 14, 3)).clip(0, 255)
    colour = colour.astype(np.float32)
    texture = FACTORS["texture"][shown.texture]
    if texture == "plain":
        return colour
    period, turn = int(random.integers(7, 11)), random.uniform(0, math.pi)
    rows, columns = _grid(size)
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    along = columns * cos + rows * sin + random.integers(0, period)
    across = rows * cos - columns * sin + random.integers(0, period)
    if texture == "striped":
        marked = along % period < period / 2
    elif texture == "dotted":
        marked = (along % period - period / 2) ** 2 + (across % period - period / 2) ** 2 < (0.28 * period) ** 2
    else:
        marked = (along // (period / 2) + across // (period / 2)) % 2 == 0
    mark = colour * np.float32(0.45) if colour.mean() > 80 else colour + np.float32(130)
    return np.asarray(np.where(marked[..., None], mark, colour), dtype=np.float32)


def _mask(kind: str, size: int, outer: float, turn: float, centre: NDArray[Any]) -> Floats:
    """How far the object covers each pixel: [size, size, 1] from 0 to 1."""
    import cv2

    mask = np.zeros((size, size), dtype=np.uint8)
    cos, sin = math.cos(turn), math.sin(turn)
    turned = np.array([[cos, sin], [-sin, cos]]) * outer
    for number, (corners, shift) in enumerate(_outlines(kind)):
        place = (corners + shift) @ turned + centre
        fixed = np.rint(place * (1 << SUBPIXELS)).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 255 if number == 0 else 0, cv2.LINE_AA, SUBPIXELS)
    return mask[..., None].astype(np.float32) / np.float32(255)


@cache
def _outlines(kind: str) -> tuple[tuple[NDArray[Any], NDArray[Any]], ...]:
    """The outline [n, 2] of a kind within the unit circle, and what is cut out of it; each with its place."""
    here, t = np.zeros(2), np.linspace(0, 2 * math.pi, 40, endpoint=False)
    circle = np.stack([np.cos(t), np.sin(t)], 1)
    if kind == "ring":
        return (circle, here), (circle * 0.55, here)
    if kind == "crescent":
        return (circle, here), (circle * 0.85, np.array([0.5, 0.0]))
    return ((circle if kind == "circle" else _corners(kind, t), here),)


def _corners(kind: str, t: NDArray[Any]) -> NDArray[np.float64]:
    """The corners of what is neither round nor hollow."""
    if kind == "star":
        turns = np.arange(10) * math.pi / 5 - math.pi / 2
        lengths = np.where(np.arange(10) % 2 == 0, 1, 0.42)
        return np.stack([lengths * np.cos(turns), lengths * np.sin(turns)], 1)
    if kind == "heart":
        down = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return np.stack([16 * np.sin(t) ** 3, -down], 1) / 17
    if kind == "hexagon":
        return np.stack([np.cos(np.arange(6) * math.pi / 3), np.sin(np.arange(6) * math.pi / 3)], 1)
    if kind == "drop":
        round_ = np.linspace(-0.6, math.pi + 0.6, 24)
        below = np.stack([0.62 * np.cos(round_), 0.35 + 0.62 * np.sin(round_)], 1)
        return np.concatenate([[[0.0, -1.0]], below])
    w = 0.33
    corners = {
        "square": [[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]],
        "triangle": [[0, -1], [0.95, 0.75], [-0.95, 0.75]],
        "diamond": [[0, -1], [0.62, 0], [0, 1], [-0.62, 0]],
        "arrow": [[-0.3, 1], [-0.3, 0], [-0.8, 0], [0, -1], [0.8, 0], [0.3, 0], [0.3, 1]],
        "cross": [
            [-w, -1], [w, -1], [w, -w], [1, -w], [1, w], [w, w], [w, 1], [-w, 1], [-w, w], [-1, w], [-1, -w], [-w, -w],
        ],
    }  # fmt: skip
    return np.array(corners[kind], dtype=float)
