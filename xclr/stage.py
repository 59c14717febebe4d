"""What a stage is: a kind, a config and inputs, which together name its output. Knows no kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, Protocol, get_args

from typing_extensions import TypeVar

from xclr.artifact import Artifact, Digest, Manifest, digest, identity
from xclr.errors import DataError
from xclr.recipe import Config, DataConfig, Recipe
from xclr.store import Store

C = TypeVar("C", bound=Config, default=Any)
Step = Literal["captions", "images", "embeddings", "graph", "pretrain", "evaluate", "compare"]  # where a run may stop
Rows = Callable[[DataConfig], int]  # how many captions a source has at most
STEPS: tuple[Step, ...] = get_args(Step)


class Progress(Protocol):
    """What a runner tells how far it is: items done and in all, and how many of the first came to something."""

    def __call__(self, done: int, total: int, ok: int | None = None, /) -> None:
        """Take note."""


class Produced(NamedTuple):
    """What a stage's runner leaves in its directory: files, numbers worth showing, folders no longer needed."""

    files: tuple[str, ...]
    stats: dict[str, Any]
    scratch: tuple[str, ...] = ()


class Pieces(NamedTuple):
    """What a stage is made of: items (captions, pictures, pairs), in so many shards."""

    items: int
    shards: int


class Origin(NamedTuple):
    """Whose network it is, as tables name it."""

    method: str
    dataset: str
    graph: str
    seed: int
    rate: str = ""  # its optimiser and highest learning rate
    uses: str = ""  # pixels, labels, captions, a pretrained text model
    trained: str = ""  # how, where that is otherwise than its recipe's other networks


class Given(NamedTuple):
    """What a stage reads that no stage made: where it is, the hashes that it had, and what takes them anew.

    `paths` are files, one a hash, or what they lie in; `rehash` raises XclrError or OSError where they are not there.
    """

    what: str  # for people
    paths: tuple[Path, ...]
    sha256: tuple[str, ...]
    rehash: Callable[[], tuple[str, ...]]


def network_name(method: str, graph: str, seed: int | None = None) -> str:
    """What people call a network, `xclr (captions), seed 0`, or its method; what has no targets is `random, seed 0`."""
    targets = "" if graph in {"", "none"} else f" ({graph})"
    return f"{method}{targets}" + ("" if seed is None else f", seed {seed}")


class Estimate(NamedTuple):
    """Core-hours in all, and GiB of memory of one process."""

    core_hours: float
    memory_gb: float


class Refusal(NamedTuple):
    """Why a recipe cannot take a step with what was made before it, and what to do."""

    step: Step
    error: DataError


@dataclass(frozen=True)
class Kind(Generic[C]):
    """All that the rest of the house knows of one kind of stage."""

    name: str  # folder of its artifacts, key of cluster files
    config: type[C]
    code: int  # version of what it writes; part of the digest
    run: str  # the module whose `run` makes it, imported by its job alone: (stage, out, progress) -> Produced
    step: Step  # where `--until` stops
    part: Callable[[C], str] = lambda config: ""  # which of its like it is: a suite, a data set
    words: str = ""  # in the name of a sweep's level, where the kind's name says too much
    pieces: Callable[[Stage[C], Store], Pieces] | None = None  # shards, made by `run_shard` of the module; else whole
    ranks: Callable[[C], int] | None = None  # seconds that its processes wait for one that is late; else it has one
    given: Callable[[C, Store], Iterable[Given]] = lambda config, store: ()  # what it reads that no stage made
    here: Callable[[C], bool] = lambda config: False  # made where xclr runs, whatever the cluster file says
    network: Callable[[C], Origin] | None = None  # whose network it makes, which has a run of its own in the tracker
    judges: bool = False  # it writes scores of one network
    generation: Callable[[C], int] = lambda config: 0  # later ones replace the ones before
    refuse: Callable[[Stage[C], Recipe, Manifest], Iterable[Refusal]] = lambda stage, recipe, made: ()  # too few data
    foresee: Callable[[Stage[C], Recipe], Iterable[Refusal]] = lambda stage, recipe: ()  # the same, before it is made
    tell: Callable[[Manifest], Iterable[str]] = lambda made: ()  # lines for people, once it is there
    table: Callable[[Manifest], Sequence[Mapping[str, Any]]] = lambda made: ()  # for people, at its task run
    facts: Callable[[C, Manifest, bool], Mapping[str, Any]] = lambda config, made, whole: made.stats  # for the tracker
    idle: Callable[[C], Container[str]] = lambda config: ()  # dotted keys of its config that what it makes ignores
    watched: bool = False  # the tracker follows it while it runs
    writes: Callable[[Stage[C], Recipe, Rows], int] = lambda stage, recipe, rows: 0  # bytes, about, of all its rows
    estimate: Callable[[Stage[C], Store, Recipe], Estimate | None] = lambda stage, store, recipe: None


@dataclass(frozen=True)
class Stage(Generic[C]):
    """One step of a run: its kind, config and inputs name its output."""

    kind: Kind[C]
    name: str  # for people
    config: C
    inputs: Mapping[str, Artifact] = field(default_factory=dict)  # by role, in order

    @cached_property
    def digest(self) -> Digest:
        """Name of the output."""
        return digest(self.kind.name, self.config, tuple(self.inputs.values()), self.kind.code)

    @property
    def identity(self) -> dict[str, Any]:
        """The config as it enters the digest."""
        return dict(identity(self.config))  # type: ignore[call-overload, no-any-return]

    @property
    def level(self) -> str:
        """What it does, in words that its like of other networks share."""
        words = self.kind.words or self.kind.name.replace("_", " ")
        return f"{words} {self.kind.part(self.config)}".strip()

    @property
    def network(self) -> Digest | None:
        """Whose output it makes or judges: the checkpoint's digest; None for a stage of the data."""
        if self.kind.network is not None:
            return self.digest
        return self.inputs["checkpoint"].digest if "checkpoint" in self.inputs else None

    def check(self, recipe: Recipe, made: Manifest, steps: Container[Step] = STEPS) -> None:
        """Raise DataError where a recipe that takes these steps cannot take one with what this made."""
        for refusal in self.kind.refuse(self, recipe, made):
            if refusal.step in steps:
                raise refusal.error

    def pieces(self, store: Store) -> Pieces:
        """Its items and shards; one shard where it is made as a whole."""
        return Pieces(1, 1) if self.kind.pieces is None else self.kind.pieces(self, store)

    def to_json(self) -> str:
        """The stage as a job reads it."""
        inputs = {role: [str(each.digest), each.kind, str(each.path)] for role, each in self.inputs.items()}
        config = self.config.model_dump(mode="json")
        return json.dumps({"kind": self.kind.name, "name": self.name, "config": config, "inputs": inputs}, indent=1)

    @classmethod
    def from_json(cls, text: str, kinds: Mapping[str, Kind[C]]) -> Stage[C]:
        """The inverse of to_json; `kinds` by name."""
        raw = json.loads(text)
        inputs = {
            role: Artifact(kind, Digest(kind, name), Path(path)) for role, (name, kind, path) in raw["inputs"].items()
        }
        kind = kinds[raw["kind"]]
        return cls(kind, raw["name"], kind.config.model_validate(raw["config"]), inputs)


class Plan:
    """Stages in an order in which they can run, each once."""

    def __init__(self, recipe: Recipe, store: Store) -> None:
        self.recipe, self.store = recipe, store
        self.stages: dict[Digest, Stage] = {}

    @cached_property
    def setting(self) -> str:
        """The recipe but for its objectives."""
        return self.recipe.model_dump_json(exclude={"objectives"})

    def add(self, stage: Stage) -> Artifact:
        """Take a stage on, unless it is there; returns where its output is or will be."""
        self.stages.setdefault(stage.digest, stage)
        return self.store.reference(stage.digest)

    def take(self, other: Plan) -> None:
        """Take the stages of another plan on, but for those that are there."""
        self.stages = self.stages | other.stages | self.stages

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages.values())

    def __len__(self) -> int:
        return len(self.stages)

    def of(self, kind: Kind[C]) -> list[Stage[C]]:
        """The stages of a kind, in order."""
        return [stage for stage in self if stage.kind is kind]

    def until(self, step: Step) -> list[Stage]:
        """The stages of a run that stops after `step`."""
        return [stage for stage in self if STEPS.index(stage.kind.step) <= STEPS.index(step)]
