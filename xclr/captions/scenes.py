"""Drawn scenes: what is true of each, and captions as people would write them. There is no file and no network.

A row is a function of the seed and its number alone. The held-out splits come first, so that no row depends on how many
pictures are trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from xclr.captions.source import SEVERAL, Class, Records, SourceReader
from xclr.captions.text import key
from xclr.files import TRAIN
from xclr.recipe import DataConfig
from xclr.recipe.scenes import FACTORS, combinations, usual_place

EDITION = 1  # of what rows are like
USUAL, PLACES, COMBINATIONS = "pictures", "places", "combinations"  # held-out splits
SCENE, CAPTION, PIXELS = range(3)  # what a generator draws

KIND, COLOUR, TEXTURE, PLACE = FACTORS.values()
OTHER_WORDS = {
    "circle": ("circle", "disc", "round thing"), "square": ("square", "box"), "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop"), "crescent": ("crescent", "half moon"), "diamond": ("diamond", "rhombus"),
    "drop": ("drop", "teardrop"), "plain": ("", "plain"), "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"), "checkered": ("checkered", "chequered"), "sand": ("sand", "a beach"),
    "grass": ("grass", "a lawn"), "water": ("water", "the sea"), "brick": ("bricks", "a brick wall"),
    "wood": ("wood", "wooden planks"), "night sky": ("the night sky", "a starry sky"),
    "leaves": ("leaves", "a forest floor"), "clouds": ("clouds", "a cloudy sky"),
}  # fmt: skip
BEGINNINGS = ("a", "one", "a picture of a", "a photo of a", "there is a")
BETWEEN = ("on", "against", "in front of")
COLOUR_TOLD, TEXTURE_TOLD, PLACE_TOLD, PLACE_FIRST = 0.8, 0.8, 0.6, 0.2  # chances


class Scene(NamedTuple):
    """What is true of a picture: places of its factors in FACTORS, radius in shares of the side, turn in radians."""

    kind: int
    colour: int
    texture: int
    place: int
    radius: float
    turn: float

    @property
    def factors(self) -> list[int]:
        """In the order of FACTORS."""
        return [self.kind, self.colour, self.texture, self.place]


def generator(seed: int, what: int, number: int) -> np.random.Generator:
    """The random numbers of one thing."""
    return np.random.Generator(np.random.PCG64([seed, what, number]))


def splits(data: DataConfig) -> list[tuple[str, int]]:
    """The splits and how many pictures each has, in the order of the rows."""
    held_out = [USUAL, PLACES, *([COMBINATIONS] if data.held_out else [])]
    return [*((split, data.tests) for split in held_out), (TRAIN, data.pictures)]


def split_of(data: DataConfig, picture: int) -> str:
    """The split of a picture."""
    for split, count in splits(data):
        if picture < count:
            return split
        picture -= count
    raise IndexError(picture)


def scene(data: DataConfig, picture: int) -> Scene:
    """What is true of a picture: colours are those that training sees of a kind, but for split "combinations"."""
    split, draw = split_of(data, picture), generator(data.seed, SCENE, picture)
    if split == COMBINATIONS:
        held_out = combinations(data.held_out)
        kind, colour = held_out[int(draw.integers(len(held_out)))]
    else:
        kind = int(draw.integers(len(KIND)))
        there = _colours(data.held_out)[kind]
        colour = there[int(draw.integers(len(there)))]
    bias = data.bias if split in {TRAIN, USUAL} else 0.0
    place = usual_place(kind) if draw.random() < bias else int(draw.integers(len(PLACE)))
    texture = int(draw.integers(len(TEXTURE)))
    return Scene(kind, colour, texture, place, draw.uniform(0.25, 0.4), draw.uniform(-0.5, 0.5))


@cache
def _colours(held_out: tuple[str, ...]) -> list[list[int]]:
    """The colours of each kind that are not held out."""
    never = set(combinations(held_out))
    return [[colour for colour in range(len(COLOUR)) if (kind, colour) not in never] for kind in range(len(KIND))]


def caption(data: DataConfig, row: int, shown: Scene) -> tuple[str, bool]:
    """What somebody says of a picture, and whether it is of another: each part but the kind may be left out."""
    draw = generator(data.seed, CAPTION, row)
    wrong = bool(draw.random() < data.noise)
    told = [int(draw.integers(len(values))) for values in FACTORS.values()] if wrong else shown.factors

    def pick(words: Sequence[str]) -> str:
        return words[int(draw.integers(len(words)))]

    kind, colour, texture, place = (
        pick(OTHER_WORDS.get(values[number], (values[number],)))
        for values, number in zip(FACTORS.values(), told, strict=True)
    )
    chances = draw.random(4).tolist()
    thing = [colour] * (chances[0] < COLOUR_TOLD) + [texture] * bool(texture and chances[1] < TEXTURE_TOLD)
    if chances[3] < 0.5:
        thing.reverse()
    begun = _with_article(pick(BEGINNINGS), " ".join([*thing, kind]))
    if chances[2] >= PLACE_TOLD:
        return begun, wrong
    if draw.random() < PLACE_FIRST:
        return f"{pick(BETWEEN)} {place}, {begun}", wrong
    return f"{begun} {pick(BETWEEN)} {place}", wrong


def _with_article(beginning: str, thing: str) -> str:
    """The words one after the other, with an for a before a vowel."""
    return f"{beginning}{'n' * (beginning.endswith('a') and thing[0] in 'aeio')} {thing}"


def captions(data: DataConfig) -> Records:
    """One record a caption, those of a picture one after the other."""
    for picture, split in enumerate(split for split, count in splits(data) for _ in range(count)):
        shown = scene(data, picture)
        for row in range(picture * data.captions_each, (picture + 1) * data.captions_each):
            text, wrong = caption(data, row, shown)
            named = {
                name: values[number] for (name, values), number in zip(FACTORS.items(), shown.factors, strict=True)
            }
            yield {
                "key": key("scenes", str(data.seed), str(row)),
                "caption": text,
                "label": named["kind"],
                "split": split,
                "picture": key("scenes", str(data.seed), "picture", str(picture)),
                "scene": named | {"radius": shown.radius, "turn": shown.turn, "wrong": wrong},
            }
    return {}


def size(data: DataConfig) -> int:
    """How many captions there are."""
    return data.captions_each * sum(count for _, count in splits(data))


def classes(data: DataConfig, labels: Sequence[str]) -> list[Class]:
    """The kinds."""
    return [Class(label, None) for label in labels]


def listing(data: DataConfig) -> str:
    """The edition, and whether pictures have several captions."""
    words = hashlib.sha256(repr((FACTORS, OTHER_WORDS, BEGINNINGS, BETWEEN)).encode()).hexdigest()[:16]
    return f"{SEVERAL * (data.captions_each > 1)}scenes {EDITION} {words}"


READER = SourceReader(
    captions,
    size,
    classes=classes,
    several=True,
    files=lambda data: (),
    captions_listing=listing,
    pictures_listing=lambda data: f"scenes {EDITION}",
)
