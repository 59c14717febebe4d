"""What a study asks: arms, seeds, the primary number and its contrasts, from YAML."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from xclr.errors import RecipeError
from xclr.recipe import SUITES, Config, ObjectiveConfig, Recipe, SuiteName, list_faults, load_recipe, read_yaml

STUDIES = Path(__file__).parents[1] / "studies"
Contrast = tuple[str, str]  # an arm, and the one that it is set against


class Primary(Config):
    """The one number that answers the question: top-1 of a suite on a split."""

    suite: SuiteName
    split: str


class Also(Config):
    """What else of the same suite is told: top-1 on a split, or the difference of two."""

    split: str
    less: str | None = None


class Study(Config):
    """A question, and what is computed to answer it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    question: str
    base: Recipe  # data, network and schedule; its objectives and seeds are the study's
    arms: Mapping[str, ObjectiveConfig]
    seeds: int = Field(10, ge=3)
    primary: Primary
    also: Mapping[str, Also] = {}
    contrasts: tuple[Contrast, ...] = Field(min_length=1)
    mechanism: Contrast | None = None
    equivalence: float = Field(0.015, gt=0, lt=1)
    alpha: float = Field(0.05, gt=0, lt=0.5)
    resamples: int = Field(10_000, ge=100)

    @field_validator("arms", "also", mode="before")
    @classmethod
    def _texts_are_mappings(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401
        """An arm that is a text is an objective's name; what else is told, a split's."""
        if not isinstance(value, Mapping):
            return value
        key = "name" if info.field_name == "arms" else "split"
        return {name: {key: entry} if isinstance(entry, str) else entry for name, entry in value.items()}

    @model_validator(mode="after")
    def _arms_are_there(self) -> Study:
        pairs = {"contrasts": self.contrasts, "mechanism": (self.mechanism,) if self.mechanism else ()}
        for key, contrasts in pairs.items():
            for each in contrasts:
                for arm in each:
                    if arm not in self.arms:
                        near = difflib.get_close_matches(arm, self.arms, n=1)
                        said = f"did you mean {near[0]}?" if near else f"there are {', '.join(self.arms)}"
                        raise ValueError(f"{key}: no arm {arm!r} ({said})")
                if each[0] == each[1]:
                    raise ValueError(f"{key}: {each[0]} is set against itself")
        if len(set(map(frozenset, self.contrasts))) < len(self.contrasts):
            raise ValueError("contrasts: the same two arms stand twice")
        if SUITES[self.primary.suite].towers:
            raise ValueError(f"primary: not every arm has a text tower, which {self.primary.suite} needs")
        return self

    @property
    def recipe(self) -> Recipe:
        """The run that makes and judges every arm with every seed."""
        raw = self.base.model_dump(mode="json")
        raw["evaluate"]["suites"] = [self.primary.suite]
        raw["evaluate"]["references"] = []
        arms = [
            each.model_dump(mode="json", exclude_defaults=True) | {"name": each.name} for each in self.arms.values()
        ]
        return Recipe.model_validate(
            raw | {"name": f"study-{self.name}", "objectives": arms, "seeds": list(range(self.seeds))}
        )


def study_names() -> list[str]:
    """The named studies of the project."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def study_file(source: str) -> Path:
    """The file of a study by name or path; raises RecipeError when there is none."""
    for path in (STUDIES / f"{source}.yaml", Path(source)):
        if path.is_file():
            return path
    near = difflib.get_close_matches(source, study_names(), n=1)
    remedy = f"did you mean {near[0]}?" if near else f"give a file, or one of: {', '.join(study_names())}"
    raise RecipeError(f"no study {source!r}", remedy)


def load_study(source: str) -> Study:
    """A study by name or path; raises RecipeError.

    Its file has the keys of Study, `recipe`, a recipe's name or a path beside the file, and `set`: overrides by field.
    """
    path = study_file(source)
    document = read_yaml(path)
    raw = document.content
    if not isinstance(raw, dict) or not isinstance(raw.get("recipe"), str):
        raise RecipeError(f"{path} names no recipe", "write recipe: emoji, and what the study asks")
    beside = path.parent / str(raw["recipe"])
    changed = raw.pop("set", None) or {}
    if not isinstance(changed, dict):
        raise RecipeError(f"{path}: set holds {changed!r}", "write set: {field: value}")
    settings = [f"{field}={json.dumps(value)}" for field, value in changed.items()]
    base = load_recipe(str(beside) if beside.is_file() else str(raw["recipe"]), settings)
    given = {key: value for key, value in raw.items() if key != "recipe"}
    try:
        study = Study.model_validate({"name": path.stem, "base": base} | given)
        study.recipe  # noqa: B018 - arms that one recipe cannot hold are told here
    except ValidationError as error:
        told = [
            (
                each["loc"],
                ".".join(map(str, each["loc"])) + ": " * bool(each["loc"]) + each["msg"].removeprefix("Value error, "),
            )
            for each in error.errors()
        ]
        raise RecipeError(list_faults(str(path), told, document.line), "mend the keys named above") from error
    return study
