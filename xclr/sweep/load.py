"""Sweeps from YAML and the command line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xclr.errors import RecipeError
from xclr.recipe import YAMLError, list_faults, load_recipe, parse_yaml, read_yaml, recipe_names
from xclr.sweep.spec import Draw, Sweep, short

SWEEPS = Path(__file__).parents[1] / "sweeps"


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
        raw = read_yaml(path).content
    except RecipeError:  # which is told when it is read as a recipe
        return False
    return isinstance(raw, dict) and "recipe" in raw


def load_sweep(source: str, given: Mapping[str, Any], overrides: Sequence[str] = ()) -> Sweep:
    """A sweep by name or path, or of a recipe by its name or path; `given` stands before what the file says.

    A sweep's file has the keys of Sweep, `recipe` by name or path, `set`: overrides by field, and `seeds`. Raises
    RecipeError with what is wrong.
    """
    raw, document = {"recipe": source} | dict(given), None
    if is_sweep(source):
        named = SWEEPS / f"{source}.yaml"
        document = read_yaml(named if named.is_file() else Path(source))
        raw = {"name": document.path.stem} | document.content | dict(given)
    _check_name(source)
    settings = [f"{field}={json.dumps(value)}" for field, value in _mapping(raw, "set").items()]
    settings += [] if raw.get("seeds") is None else [f"seeds={json.dumps(raw['seeds'], default=list)}"]
    recipe = str(raw["recipe"])
    beside = recipe if document is None else str(document.path.parent / recipe)
    raw["recipe"] = load_recipe(beside if Path(beside).is_file() else recipe, [*settings, *overrides])
    fields = [field for part in ("grid", "lists", "random") for field in _mapping(raw, part)]
    raw.setdefault("name", "-".join([raw["recipe"].name, *map(short, fields)]))
    try:
        return Sweep.model_validate({key: value for key, value in raw.items() if key not in ("set", "seeds")})
    except ValidationError as error:
        told = [(each["loc"], _explained(each["loc"], each["msg"])) for each in error.errors()]
        faults = list_faults(f"sweep {raw['name']}", told, lambda place: document and document.line(place))
        raise RecipeError(faults, "docs/sweeps.md shows ones that work") from error


def _mapping(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What stands under a key that holds values by field; raises RecipeError."""
    value = raw.get(key, {})
    if not isinstance(value, Mapping):
        raise RecipeError(f"sweep {raw.get('name', raw['recipe'])}: {key} holds {value!r}", "write {field: values}")
    return value


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
        return field, tuple(parse_yaml(f"[{values}]"))
    except YAMLError as error:
        raise RecipeError(f"{flag} {text}: {error}", "quote the values") from error


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
