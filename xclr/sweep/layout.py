"""Sweeps: a recipe at many values of its fields. A point is one choice of values, a cell one network of a point.

Nothing here says where or when a cell is made: cells are stages like any others, named by what makes them, so that
points, sweeps and single runs share what they have in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xclr.artifact import Digest
from xclr.errors import DataError, RecipeError
from xclr.pipeline import pipeline, planned_once
from xclr.recipe import Config, GraphedConfig, RandomConfig
from xclr.stage import Plan, Stage
from xclr.store import Store, hashed_once
from xclr.sweep.spec import Point, Sweep, Values, points, spelled, text_of
from xclr.training.stages import PRETRAIN, graph_suffix


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
    def digests(self) -> frozenset[str]:
        """Of what it is made of."""
        return frozenset(each.digest for each in self.stages)

    @property
    def suites(self) -> tuple[Ref, ...]:
        """What judges it."""
        return tuple(each for each in self.stages if each.kind == "suite")

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.label} {spelled(self.values)} seed {self.seed}".replace("  ", " ")


@dataclass(frozen=True)
class SweepPlan:
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


def layout(sweep: Sweep, store: Store) -> SweepPlan:
    """The stages and cells of a sweep; touches nothing.

    Networks without a training, the row `random` of other tables, are left out. Raises RecipeError for a field that
    changes nothing, and what planning a recipe raises, naming the point.
    """
    with hashed_once(), planned_once():
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
    return SweepPlan(
        sweep, {name: tuple(each.values()) for name, each in ordered}, cells, tuple(plan for _, plan in planned)
    )


def values_of(cells: Sequence[Cell]) -> dict[str, Values]:
    """The values of cells' networks, by digest; of cells that share one, the first's."""
    return {cell.training.digest: cell.values for cell in reversed(cells)}


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
    origin = first.kind.network(first.config)
    method = " ".join(
        word for word in origin.method.split(" ") if f"objective.{word.partition('=')[0]}" not in sweep.axes
    )
    refs = tuple(Ref(level=each.level, kind=each.kind.name, digest=each.digest, name=each.name) for each in chain)
    own = [field for field in sweep.axes if _may_depend(first, field)]
    values = {field: held[0][field] for field in own if len({text_of(each[field]) for each in held}) == 1}
    told = any(field.startswith(("graph.", "objective.graph")) for field in values)
    suffix = "" if told or first.kind is not PRETRAIN else graph_suffix(first.config.objective, first.config.dataset)
    return Cell(label=method + suffix, method=method, graph=origin.graph, seed=origin.seed, values=values, stages=refs)


def _may_depend(stage: Stage, field: str) -> bool:
    """False for a field of other objectives than a network's own."""
    if stage.kind is not PRETRAIN:
        return not field.startswith(("objective.", "graph.", "train."))
    objective = stage.config.objective
    if field.startswith("objective."):
        return field.split(".")[1] in type(objective).model_fields
    return field not in {"graph.source", "graph.seed"} or isinstance(objective, GraphedConfig)
