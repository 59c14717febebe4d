"""What a sweep varies, and its points."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from random import Random
from typing import Any

from pydantic import Field, field_validator, model_validator

from xclr.errors import RecipeError
from xclr.evaluation.stages import suites
from xclr.recipe import Config, ObjectiveConfig, Recipe, with_graph, with_overrides

Values = Mapping[str, Any]  # by field of the recipe, as in --set
DIGITS = 3  # significant ones of a drawn number, so that it can be read and typed
NOT_SWEPT = {"seeds": "--seeds", "name": "--name", "objective": "a field of it", "evaluate.suites": "--set"}


class Draw(Config):
    """A range that random search draws from."""

    low: float
    high: float
    log: bool = Field(False, description="evenly over the logarithm")
    whole: bool = Field(False, description="whole numbers, both ends among them")

    @model_validator(mode="after")
    def _is_a_range(self) -> Draw:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError(f"no range: {self.low} to {self.high}{' over the logarithm' * self.log}")
        return self

    def draw(self, source: Random) -> float | int:
        """A number of the range."""
        if self.whole:
            return source.randint(math.ceil(self.low), math.floor(self.high))
        if self.log:
            drawn = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
        else:
            drawn = source.uniform(self.low, self.high)
        return float(f"{drawn:.{DIGITS}g}")


class Sweep(Config):
    """What is swept: every combination of `grid`, with each row of `lists`, with each of the `samples` of `random`."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="of the sweep; default: recipe and fields"
    )
    recipe: Recipe = Field(description="what does not vary; its seeds are the sweep's")
    grid: Mapping[str, tuple[Any, ...]] = Field({}, description="values by field; every combination is a point")
    lists: Mapping[str, tuple[Any, ...]] = Field({}, description="values by field; the first of each go together, ...")
    random: Mapping[str, Draw | tuple[Any, ...]] = Field({}, description="ranges or choices by field, drawn from")
    samples: int = Field(8, ge=1, description="how often `random` is drawn; more of them keep the first ones")
    draw: int = Field(0, ge=0, description="seed of the draws")
    by: str = Field("", description="the suite that names the best point; default: the recipe's first")
    parallel: int | None = Field(None, ge=1, description="jobs of one array at once; default: the cluster file's")
    max_gpu_hours: float | None = Field(None, ge=0, description="refuse a plan that may take more")
    stop_weak: bool = Field(
        False,
        description="successive halving: after 1/8, 1/4 and 1/2 of its steps a training stops that is not among the "
        "better half of its objective's, by the k-NN top-1 that it logs every train.watch_every steps",
    )

    @field_validator("grid", "lists", "random")
    @classmethod
    def _fields_can_vary(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        for field, values in given.items():
            if field in NOT_SWEPT:
                raise ValueError(f"{field} is not swept: use {NOT_SWEPT[field]}")
            if isinstance(values, tuple) and not values:
                raise ValueError(f"{field} has no values")
        return given

    @model_validator(mode="after")
    def _is_a_sweep(self) -> Sweep:
        if not self.axes:
            raise ValueError("nothing varies: give grid, lists or random")
        if len(set(self.axes)) < len(self.axes):
            raise ValueError("a field stands in two of grid, lists and random")
        if len({len(values) for values in self.lists.values()}) > 1:
            lengths = ", ".join(f"{field} {len(values)}" for field, values in self.lists.items())
            raise ValueError(f"lists must be equally long: {lengths}")
        if self.stop_weak and (self.recipe.train.watch_every is None or not self.recipe.data.has_labels):
            lacking = "data with classes" if not self.recipe.data.has_labels else "train.watch_every"
            raise ValueError(f"stop_weak goes by the k-NN top-1 of trainings, which needs {lacking}")
        if self.by and self.by not in self.recipe.evaluate.suites:
            raise ValueError(f"by: {self.by} is not among the suites {', '.join(self.recipe.evaluate.suites)}")
        return self

    @property
    def axes(self) -> tuple[str, ...]:
        """The fields that vary, in order."""
        return (*self.grid, *self.lists, *self.random)

    @property
    def judge(self) -> str | None:
        """The suite that names the best point; None where nothing is judged."""
        return self.by or next(iter(suites(self.recipe)), None)


@dataclass(frozen=True)
class Point:
    """One choice of values, and the recipe that has them."""

    values: Values
    recipe: Recipe


def spelled(values: Values) -> str:
    """Values as people read them: target_temperature=0.1 graph.source=captions."""
    return " ".join(f"{short(field)}={text_of(value)}" for field, value in values.items())


def short(field: str) -> str:
    """A field without the part that goes without saying."""
    return field.removeprefix("objective.").removeprefix("train.")


def text_of(value: object) -> str:
    """A value as a table shows it."""
    return value if isinstance(value, str) else json.dumps(value)


def points(sweep: Sweep) -> list[Point]:
    """Every point of a sweep; raises RecipeError naming the point whose recipe cannot be."""
    found, alone = [], cache(partial(_recipe_of, sweep.recipe))
    for values in _choices(sweep):
        try:
            found.append(Point(values, _joined(sweep.recipe.objectives, values, alone)))
        except RecipeError as error:
            raise RecipeError(f"{spelled(values)}: {error.message}", error.remedy) from error
    return found


def recipe_at(recipe: Recipe, values: Values) -> Recipe:
    """The recipe with these values; objectives that they make equal are one."""
    return _joined(recipe.objectives, values, partial(_recipe_of, recipe))


def _recipe_of(recipe: Recipe, objective: ObjectiveConfig, settings: tuple[str, ...]) -> Recipe:
    """A recipe of one objective, with settings."""
    return with_overrides(recipe.model_copy(update={"objectives": (objective,)}), settings)


def _joined(objectives: Sequence[ObjectiveConfig], values: Values, alone: Callable[..., Recipe]) -> Recipe:
    """One recipe of those that each objective has with these values: it takes no value that is only others'."""
    swept = {f"objective.{field}" for each in objectives for field in type(each).model_fields}
    found = []
    for objective in objectives:
        others = swept - {f"objective.{field}" for field in type(objective).model_fields}
        held = {field: value for field, value in values.items() if ".".join(field.split(".")[:2]) not in others}
        found.append(alone(objective, tuple(f"{field}={json.dumps(value)}" for field, value in held.items())))
    own = dict.fromkeys(each for recipe in found for each in with_graph(recipe.objectives, recipe.graph))
    return found[0].model_copy(update={"objectives": tuple(own)})


def _choices(sweep: Sweep) -> Iterator[Values]:
    grid = [dict(zip(sweep.grid, values, strict=True)) for values in product(*sweep.grid.values())]
    rows = [dict(zip(sweep.lists, values, strict=True)) for values in zip(*sweep.lists.values(), strict=True)]
    drawn = [_drawn(sweep, sample) for sample in range(sweep.samples if sweep.random else 1)]
    for each in product(grid, rows or [{}], drawn):
        yield each[0] | each[1] | each[2]


def _drawn(sweep: Sweep, sample: int) -> dict[str, Any]:
    """Sample number `sample`: the same however many there are, and whatever else is drawn."""
    made = {}
    for field, values in sweep.random.items():
        source = Random(f"{sweep.draw}/{field}/{sample}")  # noqa: S311 - not for secrets
        made[field] = values.draw(source) if isinstance(values, Draw) else source.choice(values)
    return made
