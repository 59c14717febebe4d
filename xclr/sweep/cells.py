"""How a sweep's cells stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from xclr.sweep.layout import Cell

CellState = Literal["done", "failed", "stopped", "running", "waiting", "to come"]
ORDER: tuple[CellState, ...] = (  # a cell's is its stages' first
    "failed", "stopped", "running", "waiting", "to come", "done",
)  # fmt: skip


class Standing(NamedTuple):
    """How a stage of a cell stands, and why it failed, or was stopped as weak."""

    state: CellState
    reason: str = ""
    job: str = ""


class CellLine(NamedTuple):
    """How a cell stands: its state, and the first stage that is not done with what is known of it.

    `gpu_hours` are those that its jobs used, None where nobody counted.
    """

    cell: Cell
    state: CellState
    level: str
    reason: str
    job: str
    gpu_hours: float | None
    standings: tuple[Standing, ...]  # of its stages, in order


def counts(lines: Iterable[CellLine]) -> dict[CellState, int]:
    """How many cells stand in each state that some cell is in."""
    states = [each.state for each in lines]
    return {state: states.count(state) for state in reversed(ORDER) if state in states}
