"""A recipe as it will be run: what it leaves open is resolved, once, by a look at its own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from xclr.errors import RecipeError, StoreError
from xclr.recipe import FROM_RUN, OPEN, SOURCES, Recipe, is_resolved, told, unsaid
from xclr.training.stages import CHECKPOINT, PRETRAIN


class Resolved(NamedTuple):
    """A recipe that leaves nothing open, and the line that says what was chosen, if anything."""

    recipe: Recipe
    line: str | None = None


def resolve(recipe: Recipe, home: Path) -> Resolved:
    """Choose how own pictures are trained where the recipe does not say, and find the runs that it starts from.

    A recipe that was resolved stays as it is. Raises DataError for data that are not there, StoreError for a run.
    """
    recipe = recipe.with_weights(lambda given: _found(given, home))
    if not SOURCES[recipe.data.source].own or is_resolved(recipe.train):
        return Resolved(recipe)
    from xclr.images.look import look  # here, because other recipes need no Pillow

    seen = look(recipe.data)
    if seen is None:
        return Resolved(recipe)
    chosen = unsaid(recipe.train, seen)
    every = {name: getattr(recipe.train, name) for name in OPEN} | chosen
    train = recipe.train.model_copy(update=every)
    return Resolved(recipe.model_copy(update={"train": train}), told(seen, chosen, recipe.train))


def _found(given: str, home: Path) -> str:
    """The folder of a run's network, run:NAME/METHOD/SEED, or of a checkpoint; other weights as they are."""
    if not given.startswith(FROM_RUN):
        return given
    wanted = given.removeprefix(FROM_RUN)
    if (Path(wanted) / CHECKPOINT).is_file():
        return str(Path(wanted).absolute())
    from xclr.opened import Opened  # here, as below, because others need no records
    from xclr.record import Record, read_records, records_named

    name, method, seed = (*wanted.split("/"), "", "")[:3]
    if seed and not seed.isdecimal():
        raise RecipeError(f"train.init {given}: {seed!r} is no seed", "write run:NAME/METHOD/SEED")
    run = Opened(home, records_named(home, read_records(home, Record), name)[-1])
    network = run.network(method or None, int(seed) if seed else None)
    if network.checkpoint.kind != PRETRAIN.name:
        raise StoreError(f"{given} is a network from elsewhere", "give its own weights: timm:NAME or torchvision:NAME")
    return str(network.checkpoint.path)
