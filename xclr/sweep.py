"""Sweeps: a recipe at many values of its fields. A point is one choice of values, a cell one network of a point.

Nothing here says where or when a cell is made: cells are stages like any others, named by what makes them, so that
points, sweeps and single runs share what they have in common.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from xclr.artifact import Digest
from xclr.errors import DataError, RecipeError
from xclr.evaluation.stages import suites
from xclr.pipeline import pipeline
from xclr.recipe import (
    Config,
    GraphedConfig,
    RandomConfig,
    Recipe,
    load_recipe,
    recipe_names,
    with_graph,
    with_overrides,
)
from xclr.stage import Plan, Stage
from xclr.store import Store
from xclr.training.stages import PRETRAIN, graph_suffix

SWEEPS = Path(__file__).parent / "sweeps"
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

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the sweep; default: recipe and fields")
    recipe: Recipe = Field(description="what does not vary; its seeds are the sweep's")
    grid: Mapping[str, tuple[Any, ...]] = Field({}, description="values by field; every combination is a point")
    lists: Mapping[str, tuple[Any, ...]] = Field({}, description="values by field; the first of each go together, ...")
    random: Mapping[str, Draw | tuple[Any, ...]] = Field({}, description="ranges or choices by field, drawn from")
    samples: int = Field(8, ge=1, description="how often `random` is drawn; more of them keep the first ones")
    draw: int = Field(0, ge=0, description="seed of the draws")
    by: str = Field("", description="the suite that names the best point; default: the recipe's first")
    parallel: int | None = Field(None, ge=1, description="jobs of one array at once; default: the cluster file's")
    max_gpu_hours: float | None = Field(None, ge=0, description="refuse a plan that may take more")

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


class Ref(Config):
    """A stage by the name of its output; `level` says what it does, in words that its like share."""

    level: str
    kind: str
    digest: str
    name: str

    @property
    def output(self) -> Digest:
        """The digest as the store takes it."""
        return Digest(self.kind, self.digest)


class Cell(Config):
    """One network of a sweep and all that judges it: its training comes first, its suites last.

    `values` are those of the axes that it depends on: a baseline that an axis does not change has none of that axis.
    `label` is the method, with its graph where that is neither the method's own nor told by a value.
    """

    label: str
    method: str
    graph: str
    seed: int
    values: Values
    stages: tuple[Ref, ...]

    @property
    def training(self) -> Ref:
        """What makes the network."""
        return self.stages[0]

    @property
    def suites(self) -> tuple[Ref, ...]:
        """What judges it."""
        return tuple(each for each in self.stages if each.kind == "suite")

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.label} {spelled(self.values)} seed {self.seed}".replace("  ", " ")


@dataclass(frozen=True)
class Layout:
    """All stages of a sweep: by level in an order in which they can run, each once; and its cells."""

    sweep: Sweep
    levels: Mapping[str, tuple[Stage, ...]]
    cells: tuple[Cell, ...]
    plans: tuple[Plan, ...]  # of its points

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Every stage once, in an order in which they can run."""
        return tuple(stage for level in self.levels.values() for stage in level)

    @property
    def shared(self) -> tuple[str, ...]:
        """The levels that belong to no cell: data, graphs, benchmarks."""
        return tuple(name for name, level in self.levels.items() if level[0].network is None)

    def before(self, level: str) -> list[str]:
        """The levels that make what a level reads."""
        made = {stage.digest: name for name, stages in self.levels.items() for stage in stages}
        read = {made.get(each.digest) for stage in self.levels[level] for each in stage.inputs.values()}
        return [name for name in self.levels if name in read]


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
    found = []
    for values in _choices(sweep):
        try:
            found.append(Point(values, _recipe_at(sweep.recipe, values)))
        except RecipeError as error:
            raise RecipeError(f"{spelled(values)}: {error.message}", error.remedy) from error
    return found


def _recipe_at(recipe: Recipe, values: Values) -> Recipe:
    """The recipe with these values; objectives that they make equal are one."""
    settings = [f"{field}={json.dumps(value)}" for field, value in values.items()]
    alone = (recipe.model_copy(update={"objectives": (each,)}) for each in recipe.objectives)
    found = [with_overrides(each, settings) for each in alone]
    objectives = dict.fromkeys(own for each in found for own in with_graph(each.objectives, each.graph))
    return found[0].model_copy(update={"objectives": tuple(objectives)})


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


def layout(sweep: Sweep, store: Store) -> Layout:
    """The stages and cells of a sweep; touches nothing.

    Networks without a training, the row `random` of other tables, are left out. Raises RecipeError for a field that
    changes nothing, and what planning a recipe raises, naming the point.
    """
    planned = [(point, _planned(point, store)) for point in points(sweep)]
    left_out = {stage.digest for _, found in planned for stage in found if _is_untrained(stage)}
    wanted = {digest for _, found in planned for digest in _wanted(found)}
    levels: dict[str, dict[str, Stage]] = {}
    owned: dict[tuple[str, ...], tuple[list[Stage], list[Values]]] = {}
    for point, found in planned:
        chains: dict[str, list[Stage]] = {}
        for stage in found:
            owner = stage.network or stage.digest
            if owner in left_out or stage.digest not in wanted:
                continue
            levels.setdefault(stage.level, {})[stage.digest] = stage
            if stage.network:
                chains.setdefault(owner, []).append(stage)
        for chain in chains.values():
            owned.setdefault(tuple(each.digest for each in chain), (chain, []))[1].append(point.values)
    cells = tuple(_cell(sweep, *each) for each in owned.values())
    for field in sweep.axes:
        if not any(field in cell.values for cell in cells):
            raise RecipeError(f"sweep {sweep.name}: no network depends on {field}", "sweep another field, or --set it")
    ordered = sorted(levels.items(), key=lambda level: next(iter(level[1].values())).network is not None)
    return Layout(
        sweep, {name: tuple(each.values()) for name, each in ordered}, cells, tuple(plan for _, plan in planned)
    )


def _planned(point: Point, store: Store) -> Plan:
    try:
        return pipeline(point.recipe, store)
    except (RecipeError, DataError) as error:
        raise type(error)(f"{spelled(point.values)}: {error.message}", error.remedy) from error


def _wanted(plan: Plan) -> set[str]:
    """Digests of the stages of a point but for what is made of a network and no suite reads, and the comparison."""
    kept = [stage for stage in plan if stage.kind.step != "compare"]
    read = {each.digest for stage in kept for each in stage.inputs.values()}
    return {
        stage.digest
        for stage in kept
        if stage.kind.judges or stage.network in {None, stage.digest} or stage.digest in read
    }


def _is_untrained(stage: Stage) -> bool:
    return stage.kind is PRETRAIN and isinstance(stage.config.objective, RandomConfig)


def _cell(sweep: Sweep, chain: Sequence[Stage], held: Sequence[Values]) -> Cell:
    """The cell of a chain of stages that these points share."""
    first = chain[0]
    assert first.kind.network is not None
    name, _, graph, seed = first.kind.network(first.config)
    method = " ".join(word for word in name.split(" ") if f"objective.{word.partition('=')[0]}" not in sweep.axes)
    refs = tuple(Ref(level=each.level, kind=each.kind.name, digest=each.digest, name=each.name) for each in chain)
    own = [field for field in sweep.axes if _may_depend(first, field)]
    values = {field: held[0][field] for field in own if len({text_of(each[field]) for each in held}) == 1}
    told = any(field.startswith(("graph.", "objective.graph")) for field in values)
    suffix = "" if told or first.kind is not PRETRAIN else graph_suffix(first.config.objective)
    return Cell(label=method + suffix, method=method, graph=graph, seed=seed, values=values, stages=refs)


def _may_depend(stage: Stage, field: str) -> bool:
    """False for a field of other objectives than a network's own."""
    if stage.kind is not PRETRAIN:
        return not field.startswith(("objective.", "graph.", "train."))
    objective = stage.config.objective
    if field.startswith("objective."):
        return field.split(".")[1] in type(objective).model_fields
    return field not in {"graph.source", "graph.seed"} or isinstance(objective, GraphedConfig)


def sweep_names() -> list[str]:
    """The named sweeps of the project."""
    return sorted(path.stem for path in SWEEPS.glob("*.yaml"))


def is_sweep(source: str) -> bool:
    """Whether a name or file is a sweep's, not a recipe's."""
    if (SWEEPS / f"{source}.yaml").is_file():
        return True
    path = Path(source)
    if not path.is_file() or source in recipe_names():
        return False
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):
        return False
    return isinstance(raw, dict) and "recipe" in raw


def load_sweep(source: str, given: Mapping[str, Any], overrides: Sequence[str] = ()) -> Sweep:
    """A sweep by name or path, or of a recipe by its name or path; `given` stands before what the file says.

    A sweep's file has the keys of Sweep, `recipe` by name or path, `set`: overrides by field, and `seeds`. Raises
    RecipeError with what is wrong.
    """
    raw: dict[str, Any] = {"recipe": source}
    base = Path()
    if is_sweep(source):
        named = SWEEPS / f"{source}.yaml"
        path = named if named.is_file() else Path(source)
        raw = {"name": path.stem} | yaml.safe_load(path.read_text(encoding="utf-8"))
        base = path.parent
    _check_name(source)
    raw |= given
    settings = [f"{field}={json.dumps(value)}" for field, value in raw.pop("set", {}).items()]
    seeds = raw.pop("seeds", None)
    settings += [] if seeds is None else [f"seeds={json.dumps(list(seeds))}"]
    recipe, beside = str(raw["recipe"]), base / str(raw["recipe"])
    raw["recipe"] = load_recipe(str(beside) if beside.is_file() else recipe, [*settings, *overrides])
    fields = [field for part in ("grid", "lists", "random") for field in raw.get(part, {})]
    raw.setdefault("name", "-".join([raw["recipe"].name, *map(short, fields)]))
    try:
        return Sweep.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(_explained(each["loc"], each["msg"]) for each in error.errors())
        raise RecipeError(f"sweep {raw['name']}: {faults}", "docs/sweeps.md shows ones that work") from error


def _check_name(source: str) -> None:
    """Raise RecipeError for a name that is nearly that of a recipe or sweep."""
    names = [*sweep_names(), *recipe_names()]
    near = difflib.get_close_matches(source, names, n=2, cutoff=0.7)
    if near and source not in names and not Path(source).is_file():
        raise RecipeError(f"no recipe or sweep {source!r}", f"did you mean {' or '.join(near)}?")


def _explained(place: Sequence[int | str], message: str) -> str:
    where = ".".join(map(str, place))
    return f"{where}: {message}" if where else message.removeprefix("Value error, ")


def parse_values(flag: str, text: str) -> tuple[str, tuple[Any, ...]]:
    """`field=v1,v2` as field and values, each of them YAML; raises RecipeError."""
    field, equals, values = text.partition("=")
    if not equals or not field or not values:
        raise RecipeError(f"{flag} {text}: no values", f"write {flag} objective.target_temperature=0.05,0.1,0.2")
    try:
        return field, tuple(yaml.safe_load(f"[{values}]"))
    except yaml.YAMLError as error:
        raise RecipeError(f"{flag} {text}: {values!r} is not YAML", "quote the values") from error


def parse_draw(text: str) -> tuple[str, Any]:
    """`field=low..high` as field and range, with log: before it over the logarithm, with whole: in whole numbers.

    Without .. it is a choice of values. Raises RecipeError.
    """
    field, _, values = text.partition("=")
    if ".." not in values:
        return parse_values("--random", text)
    words = values.split(":")
    low, _, high = words.pop().partition("..")
    try:
        if unknown := set(words) - {"log", "whole"}:
            raise ValueError(f"{unknown.pop()}: is not log: or whole:")
        return field, Draw(low=float(low), high=float(high), log="log" in words, whole="whole" in words)
    except ValueError as error:
        remedy = "write --random train.learning_rate=log:0.0001..0.1"
        raise RecipeError(f"--random {text}: no range", remedy) from error
