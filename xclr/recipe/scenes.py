"""Drawn scenes: an object of some kind, colour and texture on a place, and what a recipe says of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from pydantic import Field, field_validator

from xclr.recipe.config import LATER, Config, Seed

FACTORS: Mapping[str, tuple[str, ...]] = {  # what captions may tell of a scene, and what probes ask for
    "kind": (
        "circle", "square", "triangle", "star", "heart", "cross", "ring", "crescent", "diamond", "hexagon", "arrow",
        "drop",
    ),
    "colour": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black", "brown"),
    "texture": ("plain", "striped", "dotted", "checkered"),
    "place": ("sand", "grass", "water", "snow", "brick", "wood", "night sky", "gravel", "leaves", "clouds"),
}  # fmt: skip
MIN_SIZE = 24  # pixels: below, an object's stripes and dots are finer than two pixels
HELD_OUT = tuple(  # one colour of each kind
    f"{FACTORS['colour'][number % len(FACTORS['colour'])]} {kind}" for number, kind in enumerate(FACTORS["kind"])
)


def factor_of(name: str, value: str) -> int:
    """The number of a factor's value; raises ValueError, with the nearest, for one that there is not."""
    values = FACTORS[name]
    if value not in values:
        near = difflib.get_close_matches(value, values, n=1)
        known = f"did you mean {near[0]}?" if near else f"there are {', '.join(values)}"
        raise ValueError(f"no {name} is called {value!r} ({known})")
    return values.index(value)


def usual_place(kind: int) -> int:
    """The place that a kind is usually on."""
    return kind % len(FACTORS["place"])


class ScenesConfig(Config):
    """What is drawn where the source is scenes: fields that other sources leave as they are."""

    pictures: int = Field(8_192, ge=2, description="that are trained on (scenes)", json_schema_extra=LATER)
    tests: int = Field(
        2_000,
        ge=2,
        description="pictures of each held-out split: pictures, places as in training; places, random ones; "
        "combinations, those of held_out (scenes)",
        json_schema_extra=LATER,
    )
    size: int = Field(64, ge=MIN_SIZE, description="side of a drawn picture, pixels (scenes)", json_schema_extra=LATER)
    seed: Seed = Field(0, description="of all that is drawn (scenes)", json_schema_extra=LATER)
    bias: float = Field(
        0.8,
        ge=0,
        le=1,
        description="chance that an object stands on its kind's usual place, else on any (scenes)",
        json_schema_extra=LATER,
    )
    held_out: tuple[str, ...] = Field(
        HELD_OUT,
        description="combinations of colour and kind, red circle, that training never sees; default: one colour of "
        "each kind (scenes)",
        json_schema_extra=LATER,
    )
    noise: float = Field(
        0.0, ge=0, le=1, description="share of captions that tell of another scene (scenes)", json_schema_extra=LATER
    )
    captions_each: int = Field(1, ge=1, description="captions of a picture (scenes)", json_schema_extra=LATER)

    @field_validator("held_out")
    @classmethod
    def _held_out_are_combinations(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        kinds = [kind for kind, _ in combinations(value)]
        if len(set(combinations(value))) < len(kinds):
            raise ValueError("the same combination stands twice")
        for kind, name in enumerate(FACTORS["kind"]):
            if kinds.count(kind) == len(FACTORS["colour"]):
                raise ValueError(f"it leaves training no {name}: leave a colour of it out")
        return value


def combinations(held_out: tuple[str, ...]) -> list[tuple[int, int]]:
    """Kind and colour of each of what `held_out` names; raises ValueError for what names none."""
    found = []
    for each in held_out:
        colour, _, kind = each.partition(" ")
        found.append((factor_of("kind", kind), factor_of("colour", colour)))
    return found
