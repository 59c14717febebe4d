"""How the cells of a sweep stand, read from HOME while the sweep runs or long after."""

from __future__ import annotations

from pathlib import Path

from infra.executors.executor import executor_of, failure_of
from infra.executors.observe import observe
from infra.home.runs import RunRecord, read_runs
from infra.ledger import WHY, Attach, Book, GiveUp, JobState, Ledger, reconcile
from infra.processes import now
from xclr.errors import WeakError
from xclr.record import records_named
from xclr.store import MANIFEST, Store
from xclr.sweep.cells import ORDER, CellLine, Standing
from xclr.sweep.layout import Cell


def find_sweep(home: Path, name: str | None) -> RunRecord:
    """The newest run of a sweep, by the sweep's name or the run's id; raises StoreError when there is none."""
    sweeps = [each for each in read_runs(home) if each.sweep is not None]
    return records_named(home, sweeps, name, "sweep", "xclr sweep temperature --plan shows what one would do")[-1]


def cell_lines(home: Path, record: RunRecord) -> tuple[CellLine, ...]:
    """How every cell of a sweep's run stands, in the sweep's order."""
    store, book = Store(home), Book(home)
    return tuple(_line(store, book, record, cell) for cell in record.cells)


def _line(store: Store, book: Book, record: RunRecord, cell: Cell) -> CellLine:
    standings = tuple(standing(store, book, record, ref.kind, ref.digest) for ref in cell.stages)
    first = min(range(len(standings)), key=lambda place: (ORDER.index(standings[place].state), place))
    shown = standings[first]
    level = "" if shown.state == "done" else cell.stages[first].level
    usages = [usage for ref in cell.stages if (usage := book.usage(ref.digest)) is not None]
    hours = sum(each.gpu_hours for each in usages) if usages else None
    return CellLine(cell, shown.state, level, shown.reason, shown.job, hours, standings)


def standing(store: Store, book: Book, record: RunRecord, kind: str, digest: str) -> Standing:
    """How a stage stands."""
    out = store.folder(kind, digest)
    if (out / MANIFEST).exists():
        return Standing("done")
    entry = book.latest(digest)
    if entry is None:
        return Standing("to come")
    executor = executor_of(entry.job or "")
    job = "" if executor.is_here else "+".join(executor.ids(str(entry.job)))
    observed = observe(entry, out)
    (action,) = reconcile(Ledger((entry,), record.recipe.retries), observed, now())
    match action:
        case Attach():
            running = observed.get(entry.job or "") is JobState.RUNNING
            return Standing("running" if running else "waiting", job=job)
        case GiveUp(reason=reason):
            failure = failure_of(out)
            weak = failure is not None and failure.error == WeakError.__name__
            return Standing("stopped" if weak else "failed", failure.message if failure else reason, job)
        case _ if entry.state is JobState.CANCELLED:
            return Standing("failed", WHY[JobState.CANCELLED], job)
        case _:
            return Standing("to come")
