"""How own pictures are trained where nobody says how: by how many and how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from xclr.recipe.train import TrainConfig


class Seen(NamedTuple):
    """What a look at own pictures tells: how many there are, about, and medians in pixels; 0 of those not there yet."""

    number: int
    width: int = 0
    height: int = 0
    edge: int = 0  # the shortest
    cut_out: bool = False  # most have transparent parts


class Suited(NamedTuple):
    """What suits photographs from a shortest edge and a number on."""

    edge: int
    number: int
    image_size: int
    backbone: str


OPEN = ("image_size", "views", "backbone")  # fields of `train` that a look at the pictures may choose
DRAWN = 64  # pixels of the shortest edge of pictures that the defaults suit: drawings, not photographs
UNSEEN = 256  # the same of pictures at addresses, which are photographs
ROUNDED = 100  # pictures, from which on their number is told in two digits
SUITED = (  # a row that suits stands before all above it
    Suited(0, 0, 64, "resnet18"),
    Suited(128, 0, 128, "resnet18"),
    Suited(128, 50_000, 128, "resnet50"),
    Suited(256, 50_000, 224, "resnet50"),
)


def settings_for(seen: Seen) -> dict[str, Any]:
    """Fields of `train` that suit these pictures; none for drawings, small or cut out, which the defaults suit."""
    if seen.cut_out or 0 < seen.edge <= DRAWN:
        return {}
    edge = seen.edge or UNSEEN
    best = [each for each in SUITED if edge >= each.edge and seen.number >= each.number][-1]
    return {"image_size": best.image_size, "views": "simclr", "backbone": best.backbone}


def unsaid(train: TrainConfig, seen: Seen) -> dict[str, Any]:
    """The settings for these pictures that a recipe leaves open.

    What it says of small views, of resnet-mini's width or of stickers stands for the network or views that go with it.
    """
    said = train.model_fields_set
    if "views" in said and train.views == "stickers":
        return {}
    small = "width" in said or ("image_size" in said and train.image_size < DRAWN)
    stands = said | ({"backbone"} if small else set())
    return {name: value for name, value in settings_for(seen).items() if name not in stands}


def is_resolved(train: TrainConfig) -> bool:
    """Whether a recipe leaves nothing open."""
    return set(OPEN) <= train.model_fields_set


def told(seen: Seen, chosen: Mapping[str, Any], train: TrainConfig) -> str | None:
    """The line that says what was chosen, and how to change it; None where the pictures are small and nothing was."""
    if not chosen and not (seen.cut_out and seen.edge > train.image_size and not is_resolved(train)):
        return None
    number = f"about {float(f'{seen.number:.2g}'):,.0f}" if seen.number >= ROUNDED else str(seen.number)
    sizes = f", median {seen.width} x {seen.height}" if seen.edge else " at addresses, of sizes not known yet"
    if not chosen:
        chosen = {name: getattr(train, name) for name in OPEN}
        sizes = f", cut out{sizes}"
    values = ", ".join(f"train.{name} {value}" for name, value in chosen.items())
    return f"{number} pictures{sizes}: {values}; change with --set train.{next(iter(chosen))}=..."
