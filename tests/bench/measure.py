"""Interleaved measurement of two functions that do the same work."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

ROUNDS = 5


class Figure(NamedTuple):
    """Two measurements of one thing; `bar` is the largest ratio that is good enough."""

    name: str
    ours: float
    peer: float
    bar: float
    unit: str = "CPU-s"

    @property
    def ratio(self) -> float:
        return self.ours / self.peer

    def to_json(self) -> str:
        return json.dumps(self._asdict() | {"ratio": round(self.ratio, 3), "met": self.ratio <= self.bar})


def tell(figures: Iterable[Figure]) -> None:
    """Print one JSON line a figure, then a table with the bars."""
    table = Table("figure", "unit", "ours", "peer", "ratio", "bar", "")
    for figure in figures:
        print(figure.to_json(), flush=True)
        met = "met" if figure.ratio <= figure.bar else "not met"
        numbers = (f"{figure.ours:.3f}", f"{figure.peer:.3f}", f"{figure.ratio:.3f}", f"<= {figure.bar:.3g}")
        table.add_row(figure.name, figure.unit, *numbers, met)
    Console(stderr=True, width=130).print(table)


def spent(work: Callable[[], object]) -> float:
    """CPU seconds that work takes this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def compare(
    name: str, ours: Callable[[], object], peer: Callable[[], object], bar: float, rounds: int = ROUNDS
) -> Figure:
    """Run ours and the peer in turn, one round to warm up and some to measure; medians of process CPU time."""
    times = [(spent(ours), spent(peer)) for _ in range(rounds + 1)]
    ours_s, peer_s = (statistics.median(column) for column in zip(*times[1:], strict=True))
    return Figure(name, ours_s, peer_s, bar)
