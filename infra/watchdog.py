"""What holds a stage up that is waited for: a job that a person must let go, one that runs and makes no progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path

from infra.executors.executor import Sight, executor_of
from infra.executors.signs import last_sign
from infra.ledger import Entry
from infra.processes import now
from infra.progress import ago

EVERY_S = 5.0  # between two looks


class Watchdog:
    """Says once of each thing that holds stages up what it is and what to do about it; ends nothing."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.told, self.due = say, set[tuple[str, ...]](), 0.0

    def look(self, attempts: Iterable[tuple[Entry | None, Path]]) -> None:
        """Look at attempts that live, at most every EVERY_S seconds."""
        if time.monotonic() < self.due:
            return
        self.due = time.monotonic() + EVERY_S
        for entry, out in attempts:
            if entry is None or entry.job is None or entry.state is not None:
                continue
            for key, line in _held_up(entry, out, executor_of(entry.job).look(entry) or Sight()):
                if key not in self.told:
                    self.told.add(key)
                    self.say(line)


def silent_s(entry: Entry, out: Path, seen: Sight) -> float:
    """Seconds for which a job that runs has written nothing; those in which it waited do not count."""
    since = (now() - last_sign(entry, out)).total_seconds()
    return since if seen.elapsed_s is None else min(since, seen.elapsed_s)


def stuck_for(entry: Entry, out: Path, seen: Sight) -> float | None:
    """The same where it is longer than the cluster file allows, else None."""
    silent = silent_s(entry, out, seen)
    return silent if entry.stuck_after_s is not None and silent > entry.stuck_after_s else None


def _held_up(entry: Entry, out: Path, seen: Sight) -> Iterator[tuple[tuple[str, ...], str]]:
    """What there is to say, and by what it is known; the elements of an array are held together."""
    assert entry.job is not None
    call = executor_of(entry.job).call(entry.job)
    if seen.remedy:
        yield (
            (entry.name, seen.reason),
            f"{entry.stage}: {call} will not start by itself, {seen.reason}\n  -> {seen.remedy}",
        )
    elif (silent := stuck_for(entry, out, seen)) is not None:
        where = f"{call}{f' on {seen.node}' if seen.node and seen.node not in call else ''}"
        look = f"see {entry.log}; xclr cancel and xclr retry let it go on from what it saved"
        said = f"{entry.stage}: no progress for {ago(silent)}, {where}"
        yield (
            (entry.digest, _time(last_sign(entry, out))),
            f"{said}\n  -> {look if entry.log else 'see what its process waits for'}",
        )


def _time(when: datetime) -> str:
    return when.isoformat(timespec="seconds")
