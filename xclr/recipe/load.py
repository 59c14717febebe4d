"""Recipes from YAML, with overrides and errors that name the nearest key."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from xclr.errors import RecipeError
from xclr.printable import in_one_line
from xclr.recipe.data import DataConfig
from xclr.recipe.objective import OBJECTIVE_MODELS, OBJECTIVE_NAMES
from xclr.recipe.recipe import Recipe
from xclr.recipe.train import placed_weights
from xclr.recipe.yamlfile import Document, Place, YAMLError, list_faults, parse_yaml, read_yaml

RECIPES = Path(__file__).parents[1] / "recipes"
MOST_SHOWN = 300  # characters of a faulty value
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = MOST_SHOWN
VERSION = 1  # the newest format of recipes that this code reads


def recipe_names() -> list[str]:
    """The named recipes of the project."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path and apply `key.sub=value` overrides; raises RecipeError with the nearest names.

    A relative data.path starts at the recipe's folder, that of a named recipe at the current one.
    """
    path = _locate(source)
    document = read_yaml(path)
    raw = document.content
    if not isinstance(raw, dict):
        raise RecipeError(f"{path} does not hold keys and values", "see xclr/recipes/emoji.yaml for one that does")
    _check_version(raw, str(path))
    raw.setdefault("name", path.stem)
    for override in overrides:
        _override(raw, override)
    base = Path() if path.parent == RECIPES else path.parent
    return parse_recipe(raw, str(path), base, _lines_of(document, overrides))


def _lines_of(document: Document, overrides: Sequence[str]) -> Callable[[Place], int | None]:
    """The line of each place, None for what was set from outside."""
    keys = [override.partition("=")[0] for override in overrides]
    given = ["objectives" if key.partition(".")[0] == "objective" else key for key in keys]

    def line(place: Place) -> int | None:
        dotted = ".".join(map(str, place)) + "."
        return None if any(dotted.startswith(f"{key}.") for key in given) else document.line(place)

    return line


def parse_recipe(
    raw: dict[str, Any], where: str, base: Path = Path(), line: Callable[[Place], int | None] = lambda place: None
) -> Recipe:
    """Check a recipe's keys and values, all faults at once, each with its line where `line` knows it.

    `base` is where relative paths start.
    """
    _check_version(raw, where)
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        faults = [dict(fault) for fault in error.errors()]
        root = [
            fault for fault in faults if fault["type"] != "too_short"
        ] or faults  # a bad entry also shortens its list
        told = [(_place(fault), _explain(fault)) for fault in root]
        raise RecipeError(list_faults(where, told, line), "mend the keys named above") from error
    return _placed(recipe, base.absolute())


def _placed(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with paths that are relative starting at `base`."""
    evaluate = recipe.evaluate
    roots = {name: base / root for name, root in evaluate.roots.items()}
    references = tuple(
        each.model_copy(update={"weights": str(base / each.weights)}) if each.is_file else each
        for each in evaluate.references
    )
    evaluate = evaluate.model_copy(
        update={"roots": roots, "references": references, "data": evaluate.data and _started(evaluate.data, base)}
    )
    placed = recipe.model_copy(update={"data": _started(recipe.data, base), "evaluate": evaluate})
    return placed.with_graphs(lambda graph: graph.below(base)).with_weights(lambda given: placed_weights(given, base))


def _started(data: DataConfig, base: Path) -> DataConfig:
    return data if data.path is None else data.model_copy(update={"path": base / data.path})


def _check_version(raw: dict[str, Any], where: str) -> None:
    """Refuse a recipe of a newer format before its keys are found to be unknown."""
    version = raw.get("version", VERSION)
    if isinstance(version, int) and version > VERSION:
        raise RecipeError(
            f"{where} was written for a newer xclr: it has format {version}, this one reads {VERSION}", "upgrade xclr"
        )


def with_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """A recipe with `key.sub=value` overrides applied; raises RecipeError as `load_recipe` does."""
    if not overrides:
        return recipe
    raw = recipe.model_dump(mode="json")
    raw["train"] = recipe.train.model_dump(mode="json", exclude_unset=True)  # what it leaves open stays so
    for override in overrides:
        _override(raw, override)
    return parse_recipe(raw, where=f"recipe {recipe.name}")


def _locate(source: str) -> Path:
    named, path = RECIPES / f"{source}.yaml", Path(source)
    with suppress(OSError, ValueError):  # a name that no file can have
        if named.is_file():
            return named
        if path.is_file():
            return path
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        raise RecipeError(
            f"no recipe file {source}", "give a path that exists, or one of: " + ", ".join(recipe_names())
        )
    near = difflib.get_close_matches(source, recipe_names(), n=2) or recipe_names()
    raise RecipeError(f"no recipe {source!r}", "did you mean " + " or ".join(near) + "?")


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    told = f"--set {in_one_line(override)}"
    if not equals or not key:
        raise RecipeError(f"{told}: no value", "write --set train.epochs=2")
    try:
        value = parse_yaml(text)
    except YAMLError as error:
        raise RecipeError(f"{told}: {in_one_line(str(error))}", "quote the value") from error
    parts = key.split(".")
    if parts[0] == "objective":
        _override_objectives(raw, parts[1:], value)
    else:
        _assign(raw, parts, value, told)


def _override_objectives(raw: dict[str, Any], parts: list[str], value: object) -> None:
    """Set a field on every objective that has it."""
    models = {model.model_fields["name"].default: model for model in OBJECTIVE_MODELS}
    known = sorted({field for model in models.values() for field in model.model_fields} - {"name"})
    if not parts or parts[0] not in known:
        raise RecipeError(f"no objective has the key {'.'.join(parts)!r}", _nearest(parts[0] if parts else "", known))
    entries = raw.setdefault("objectives", [{"name": each.name} for each in Recipe.model_fields["objectives"].default])
    for index, entry in enumerate(entries if isinstance(entries, list) else []):  # other faults are told later
        named = dict(entry) if isinstance(entry, dict) else {"name": entry}
        model = models.get(named["name"]) if isinstance(named.get("name"), str) else None
        if model is not None and parts[0] in model.model_fields:
            _assign(named, parts, value, f"--set objective.{'.'.join(parts)}")
            entries[index] = named


def _assign(raw: dict[str, Any], parts: list[str], value: object, told: str) -> None:
    node = raw
    for part in parts[:-1]:
        child = node.get(part)
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict):
            raise RecipeError(f"{told}: {part} holds a value, not keys", "set it whole: --set key=value")
        node = child
    node[parts[-1]] = value


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=2)
    return "did you mean " + " or ".join(near) + "?" if near else "known keys: " + ", ".join(known)


def _place(fault: dict[str, Any]) -> list[Any]:
    loc = list(fault["loc"])
    place = loc[:2] + loc[3:] if loc[:1] == ["objectives"] else loc  # the third part repeats the objective's name
    own = len(place) - (fault["type"] == "extra_forbidden")  # an unknown key may be anything
    return [*(part for part in place[:own] if not str(part).startswith("<")), *place[own:]]  # "<": one of two kinds


def _explain(fault: dict[str, Any]) -> str:
    place = _place(fault)
    key = ".".join(str(part) for part in place)
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r} ({_nearest(str(place[-1]), _keys_at(fault['loc'][:-1]))})"
    if fault["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        given = fault["input"].get("name") if isinstance(fault["input"], dict) else fault["input"]
        return f"{key}: no objective {given!r} ({_nearest(str(given), OBJECTIVE_NAMES)})"
    if fault["type"] == "literal_error":
        near = difflib.get_close_matches(str(fault["input"]), re.findall("'([^']+)'", fault["ctx"]["expected"]), n=1)
        nearest = f" (did you mean {near[0]}?)" if near else ""
        return f"{key}: {_shown(fault['input'])} is not one of {fault['ctx']['expected']}{nearest}"
    if fault["type"] == "tuple_type" and not isinstance(fault["input"], dict):
        given = "..." if fault["input"] is None else fault["input"]
        return f"{key}: it is a list: [{given}], or --set '{key}=[{given}]' (got {_shown(fault['input'])})"
    given = "" if not key or isinstance(fault["input"], dict) else f" (got {_shown(fault['input'])})"
    return f"{key}: {_plain(fault)}{given}" if key else _plain(fault)


def _shown(value: object) -> str:
    """A value as Python writes it; the beginning of one that is long, which aliases of YAML may make without end."""
    if isinstance(value, str | int | float | None):
        return repr(value)[:MOST_SHOWN]
    return SHORT.repr(value)[:MOST_SHOWN]


def _plain(fault: dict[str, Any]) -> str:
    """What pydantic says of a fault, without its own words for what a list and a value are."""
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    return "the list is empty" if fault["type"] == "too_short" and not fault["input"] else str(fault["msg"])


def _keys_at(loc: Sequence[Any]) -> list[str]:
    """The keys the model at `loc` knows."""
    model: type[BaseModel] = Recipe
    parts = list(loc)
    if parts[:1] == ["objectives"]:
        model = next((each for each in OBJECTIVE_MODELS if each.model_fields["name"].default in parts), model)
        parts = parts[3:]
    for part in parts:
        field = model.model_fields.get(str(part))
        options = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        options = [getattr(each, "__origin__", each) for each in options]
        model = next((each for each in options if isinstance(each, type) and issubclass(each, BaseModel)), model)
    return list(model.model_fields)
