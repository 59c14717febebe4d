"""Metrics on their way to the tracker: one JSON line a step, beside the checkpoint, without network."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from xclr.store import write_atomically

SPOOL = "spool.jsonl"


class Point(NamedTuple):
    """The metrics of one step; `time_ms` since the epoch."""

    step: int
    time_ms: int
    metrics: dict[str, float]


class Spool:
    """Appends metrics to a file."""

    def __init__(self, path: Path, after: int) -> None:
        """Keep what was logged up to step `after`, so that a resumed run says nothing twice."""
        self.path = path
        kept = [point for point in read_spool(path) if point.step <= after]
        write_atomically(path, "".join(_line(point) for point in kept))

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(_line(Point(step, time.time_ns() // 1_000_000, dict(metrics))))


def read_spool(path: Path) -> Iterator[Point]:
    """The whole lines of a spool; a line cut by a crash is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            raw = json.loads(line)
            yield Point(raw["step"], raw["time_ms"], raw["metrics"])


def _line(point: Point) -> str:
    return json.dumps(point._asdict()) + "\n"
