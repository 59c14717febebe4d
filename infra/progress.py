"""Progress of running stages, read from the files their jobs write: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import contextvars
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from pydantic import computed_field
from pydantic.dataclasses import dataclass
from rich.console import Console
from rich.markup import escape
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
from xclr.printable import printable
from xclr.shards import SHARDS

REFRESH_S = 0.5
SILENT_S = 120


class Board:
    """Shows the stages of a run, on the terminal unless `quiet` and line by line to `log`; a context manager.

    What was there is told by its number, at the end; the log has a line for each stage. A `brief` one has none.
    """

    def __init__(
        self, total: int, *, quiet: bool = False, brief: bool = False, log: Callable[[str], None] | None = None
    ) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.log, self.brief = log, brief
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[ok]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.total, self.done, self.hits = total, 0, 0
        self.active: dict[TaskID, Path] = {}
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.reader = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Board:
        self.overall = self.bars.add_task("[bold]stages", total=self.total, ok="")
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
        if self.hits:
            self.say(f"{self.hits} of {self.total} stages found")

    def say(self, line: str | Text) -> None:
        """Print a line above the bars, and log it; a text may quote anything, and has no markup."""
        shown = Text(printable(line)) if isinstance(line, str) else line
        self.console.print(shown, highlight=False)
        self._note(shown)

    def found(self, name: str) -> None:
        """Count a stage as done that was there."""
        with self.lock:
            self.hits += 1
            line = self._counted(name, "hit")
            if not self.brief:
                self._note(line)

    def finished(self, name: str, how: str) -> None:
        """Count a stage as done and say so."""
        with self.lock:
            line = self._counted(name, how)
            if not self.brief:
                self.say(line)

    def _counted(self, name: str, how: str) -> Text:
        self.done += 1
        self.bars.advance(self.overall)
        return Text.assemble((f"{self.done:>3}/{self.total}", "dim"), f" {name} ", (how, "dim"))

    def _note(self, line: Text) -> None:
        if self.log is not None:
            self.log(line.plain)

    @contextmanager
    def counting(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """Show a bar that advances by one at each call of what this gives."""
        bar = self.bars.add_task(escape(name), total=total, ok="")
        try:
            yield lambda: self.bars.advance(bar)
        finally:
            self.bars.remove_task(bar)

    @contextmanager
    def stage(self, name: str, out: Path) -> Iterator[None]:
        """Show a bar while a stage is running."""
        bar = self.bars.add_task(escape(name), total=None, ok="")
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
                    ok = "" if seen.ok is None or not seen.done else f"{seen.ok / seen.done:.0%} ok"
                    self.bars.update(bar, completed=seen.done, total=seen.total, ok=ok)


@dataclass(frozen=True)
class Advance:
    """How far a stage is: items done and in all, how many of the first came to something, items a second."""

    done: int
    total: int
    ok: int | None = None
    per_s: float | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def eta_s(self) -> float | None:
        """Seconds that are left at this rate."""
        return round((self.total - self.done) / self.per_s, 1) if self.per_s else None

    def __str__(self) -> str:
        parts = [f"{self.done:,} of {self.total:,}"]
        if self.ok is not None and self.done:
            parts.append(f"{self.ok / self.done:.0%} ok")
        if self.per_s and self.done < self.total:
            parts += [f"{self.per_s:,.3g}/s", f"{ago(self.eta_s or 0)} left"]
        return ", ".join(parts)


def ago(seconds: float) -> str:
    """A span of time in its largest unit or two: 42 s, 3 min, 1 h 20 min, 2 d."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def read_progress(out: Path) -> Advance | None:
    """How far the stage is that writes to `out`, when it, or an element of its array, has said so."""
    whole = _read(out / PROGRESS)
    if whole is not None:
        return whole[0]
    parts = [found for path in (out / SHARDS).glob(f"*.{PROGRESS}") if (found := _read(path)) is not None]
    if not parts:
        return None
    done = sum(each.done for each, _ in parts)
    total = max(*(items or 0 for _, items in parts), sum(each.total for each, _ in parts))
    told = [each.ok for each, _ in parts if each.ok is not None]
    rates = [each.per_s for each, _ in parts if each.per_s and each.done < each.total]
    return Advance(done, total, sum(told) if told else None, sum(rates) or None)


def _read(path: Path) -> tuple[Advance, int | None] | None:
    """What a file says, and of how many items of a whole; the rate of a writer that is silent counts no more."""
    try:
        raw = json.loads(path.read_text())
        silent = time.time() - path.stat().st_mtime > SILENT_S
        ok, per_s = raw.get("ok"), None if silent else raw.get("per_s")
        return Advance(int(raw["done"]), int(raw["total"]), ok, per_s), raw.get("whole")
    except (OSError, ValueError, KeyError):
        return None


@contextmanager
def beside(show: Callable[[threading.Event], None]) -> Iterator[None]:
    """Let `show` run in a thread until what it is given is set, when the block ends."""
    over = threading.Event()
    within = contextvars.copy_context().run  # the thread acts for the task run of its caller
    thread = threading.Thread(target=within, args=(show, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
