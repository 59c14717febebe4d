"""Recipes: frozen, checked descriptions of a run, read from YAML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from xclr.recipe.changes import Changes
from xclr.recipe.config import Config, Seed
from xclr.recipe.data import DataConfig
from xclr.recipe.evaluate import EvalConfig
from xclr.recipe.graph import EmbedConfig, GraphConfig, TargetGraph
from xclr.recipe.objective import (
    CLIPConfig,
    GraphedConfig,
    ObjectiveConfig,
    SimCLRConfig,
    SupConConfig,
    TrainedConfig,
    XCLRConfig,
    graph_name,
    method_name,
    with_graph,
)
from xclr.recipe.suites import ON_OTHERS, SUITES
from xclr.recipe.train import TrainConfig


class RetriesConfig(Config):
    """How often a run submits a job again; preemption counts for nothing, and too little memory is not tried again."""

    timeouts: int = Field(3, ge=0, description="after the time limit of the cluster file")
    node_failures: int = Field(3, ge=0, description="after the loss of its node")
    failures: int = Field(0, ge=0, description="after a fault that the job reports itself; mostly it comes again")
    crashes: int = Field(2, ge=0, description="after an end without a word: killed, or lost by the scheduler")
    lost_after_s: int = Field(300, ge=1, description="how long a job must be absent from Slurm's queue to be lost")


class Recipe(Config):
    """A whole run."""

    version: int = Field(1, ge=1, description="format of this recipe")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="of the MLflow experiment and of runs"
    )
    data: DataConfig = DataConfig()
    embed: EmbedConfig = EmbedConfig()
    graph: GraphConfig = GraphConfig()
    objectives: tuple[ObjectiveConfig, ...] = Field(
        (SimCLRConfig(), SupConConfig(), CLIPConfig(), XCLRConfig()),
        min_length=1,
        description="what is trained, each with every seed",
    )
    train: TrainConfig = TrainConfig()
    seeds: tuple[Seed, ...] = Field((0,), min_length=1, description="three or more give intervals over seeds")
    evaluate: EvalConfig = EvalConfig()
    retries: RetriesConfig = RetriesConfig()

    @field_validator("objectives", mode="before")
    @classmethod
    def _names_are_objectives(cls, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, list | tuple):
            return [{"name": entry} if isinstance(entry, str) else entry for entry in value]
        return value

    @model_validator(mode="after")
    def _nothing_twice(self) -> Recipe:
        entries = {
            "objectives": with_graph(self.objectives, self.graph),
            "seeds": self.seeds,
            "evaluate.suites": self.evaluate.suites,
            "evaluate.references": self.evaluate.references,
        }
        for key, values in entries.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{key}: the same entry stands twice")
        called = [
            (method_name(each), graph_name(each, self.data.source)) for each in with_graph(self.objectives, self.graph)
        ]
        if alike := [name for (name, _), count in Counter(called).items() if count > 1]:
            raise ValueError(
                f"objectives: a table could not tell two entries called {alike[0]} apart; "
                "give each a recipe of its own, or sweep what differs"
            )
        return self

    @model_validator(mode="after")
    def _changes_fit(self) -> Recipe:
        for place, each in enumerate(self.objectives):
            if isinstance(each, TrainedConfig) and each.train:
                try:
                    each.trained(self.train)
                except ValidationError as error:
                    raise ValueError(f"objectives.{place}.train: {error.errors()[0]['msg']}") from error
        return self

    def with_weights(self, renamed: Callable[[str], str]) -> Recipe:
        """The recipe with other names for the weights that trainings start from, wherever it has such."""
        objectives = tuple(
            each.model_copy(update={"train": Changes(each.train | {"init": renamed(each.train["init"])})})
            if isinstance(each, TrainedConfig) and each.train.get("init")
            else each
            for each in self.objectives
        )
        changes: dict[str, Any] = {} if objectives == self.objectives else {"objectives": objectives}
        if self.train.init is not None:
            changes["train"] = self.train.model_copy(update={"init": renamed(self.train.init)})
        return self.model_copy(update=changes) if changes else self

    def with_graphs(self, changed: Callable[[TargetGraph], TargetGraph]) -> Recipe:
        """The recipe with its graph, and those that objectives name, changed."""
        objectives = tuple(
            each.model_copy(update={"graph": changed(each.graph)})
            if isinstance(each, GraphedConfig) and each.graph
            else each
            for each in self.objectives
        )
        changes: dict[str, Any] = {"graph": changed(self.graph), "objectives": objectives}
        return self.model_copy(update={key: value for key, value in changes.items() if value != getattr(self, key)})

    def on(self, other: Recipe) -> Recipe:
        """This recipe's networks, judged on the pictures of another by the suites for own pictures."""
        evaluate = self.evaluate.model_copy(update={"data": other.data, "suites": ON_OTHERS})
        return self.model_copy(update={"name": f"{self.name}-on-{other.name}", "evaluate": evaluate})

    @property
    def judged(self) -> DataConfig:
        """The pictures that the suites for own pictures judge: the recipe's, unless `evaluate.data` tells others."""
        return self.evaluate.data or self.data

    @property
    def tunes_own(self) -> bool:
        """Whether a suite trains the backbones on, on the pictures that they were trained on."""
        asked = any(SUITES[each].own and SUITES[each].trains for each in self.evaluate.suites)
        return asked and self.data.has_labels and self.evaluate.data is None

    @property
    def largest_batch(self) -> tuple[str, int]:
        """The key of the largest batch, and how many samples it has."""
        own = (each.train if isinstance(each, TrainedConfig) else {} for each in self.objectives)
        keyed = {f"objectives.{place}.train.batch_size": each for place, each in enumerate(own)}
        sizes = {key: int(each["batch_size"]) for key, each in keyed.items() if "batch_size" in each}
        return max([("train.batch_size", self.train.batch_size), *sizes.items()], key=lambda each: each[1])
