"""Progress of running stages, read from the files their jobs write: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from xclr.job import PROGRESS

REFRESH_S = 0.5


class Board:
    """Shows the stages of a run, on the terminal unless `quiet` and line by line to `log`; a context manager."""

    def __init__(self, total: int, *, quiet: bool = False, log: Callable[[str], None] | None = None) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.log = log
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.total, self.done = total, 0
        self.active: dict[TaskID, Path] = {}
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.reader = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Board:
        self.overall = self.bars.add_task("[bold]stages", total=self.total)
        if self.console.is_terminal:
            self.bars.start()
            self.reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        if self.console.is_terminal:
            self.reader.join()
            self.bars.stop()

    def say(self, line: str) -> None:
        """Print a line above the bars, and log it."""
        self.console.print(line, highlight=False)
        if self.log is not None:
            self.log(Text.from_markup(line).plain)

    def finished(self, name: str, how: str) -> None:
        """Count a stage as done and say so."""
        with self.lock:
            self.done += 1
            self.bars.advance(self.overall)
            self.say(f"[dim]{self.done:>3}/{self.total}[/dim] {name} [dim]{how}[/dim]")

    @contextmanager
    def stage(self, name: str, out: Path) -> Iterator[None]:
        """Show a bar while a stage is running."""
        bar = self.bars.add_task(name, total=None)
        with self.lock:
            self.active[bar] = out
        try:
            yield
        finally:
            with self.lock:
                del self.active[bar]
            self.bars.remove_task(bar)

    def _follow(self) -> None:
        while not self.closing.wait(REFRESH_S):
            with self.lock:
                active = dict(self.active)
            for bar, path in active.items():
                seen = read_progress(path)
                if seen is not None and bar in self.active:
                    self.bars.update(bar, completed=seen[0], total=seen[1])


def read_progress(out: Path) -> tuple[int, int] | None:
    """(done, total) of the stage that writes to `out`, when it has said so."""
    try:
        raw = json.loads((out / PROGRESS).read_text())
        return int(raw["done"]), int(raw["total"])
    except (OSError, ValueError, KeyError):
        return None
