"""Removing what no run needs any more.

Roots are the run records and the digests that someone is making; what kept artifacts were made from is kept too. An
item goes in an order that any crash may interrupt: the record of a run first, then the manifest, then the tree, then
the ledger of the digest; the next gc finds what is left.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from infra.executors.executor import ARRAYS
from infra.executors.observe import observe
from infra.home.runs import RunRecord, cancel_mark, scan_runs, shown_state
from infra.home.stored import Found, directories, forget, reachable, remove
from infra.ledger import Attach, Book, Entry, Ledger, reconcile
from infra.processes import now
from xclr.artifact import Digest
from xclr.record import record_path
from xclr.store import Store, is_locked

CODE_KEPT_S = 86_400  # since its last run began: that run may be about to submit; drafts as long
DRAFT = re.compile(r"\..+\.[0-9a-f]+")  # a file that was to replace another when its writer was killed
FOLDERS = {"code": "code", "array": ARRAYS}  # in HOME, of items that are whole folders


class Item(BaseModel):
    """Something to remove."""

    model_config = ConfigDict(frozen=True)
    kind: str  # of the stage, or "run", "ledger", "array", "code" or "draft"
    digest: str  # or the run's id, or the path in HOME
    name: str  # for people
    bytes: int
    why: str


class Survey(NamedTuple):
    """What gc would remove, in order, and the records it saw."""

    items: tuple[Item, ...]
    seen: frozenset[str]


def survey(home: Path, keep: int | None = None, *, unfinished: bool = False) -> Survey:
    """What no run needs; touches nothing.

    keep: only the newest so many runs of each recipe name count, and every running one. unfinished: also what ended
    attempts left for kept runs to resume from. Raises StoreError when a run record cannot be read.
    """
    records, faults = scan_runs(home)
    if faults:
        raise faults[0]
    kept = kept_runs(records, keep)
    found = {each.digest: each for each in directories(home)}
    book = Book(home)
    entries = {entry.digest: entry for entry in book.read().entries}
    busy = {each.digest for each in entries.values() if _is_busy(home, each)}
    busy |= {each.digest for each in found.values() if is_locked(each.path)}
    live = {digest for each in kept if shown_state(each) == "running" for digest in each.digests}
    roots = {digest for each in kept for digest in each.digests} | busy
    needed = reachable(roots, {each.digest: each.inputs for each in found.values()})
    if unfinished:
        needed -= {each.digest for each in found.values() if not each.finished} - busy - live
    names = {digest: entry.stage for digest, entry in entries.items()}
    names_kept = {each.run for each in kept}
    dropped = [_run_item(home, each, keep) for each in records if each.run not in names_kept]
    gone = [_artifact_item(each, names) for each in found.values() if each.digest not in needed]
    kept_names = {entry.name for digest, entry in entries.items() if digest in needed}
    items = (
        *dropped,
        *gone,
        *_ledger_items(book, needed | set(found)),
        *_array_items(home, kept_names),
        *_code_items(home, busy=bool(busy)),
        *_draft_items(home),
    )
    return Survey(items, frozenset(each.run for each in records))


def collect(home: Path, plan: Survey) -> Iterator[Item]:
    """Remove what a survey found, and yield each item that went; what was taken up meanwhile stays."""
    for item in plan.items:
        if item.kind == "run":
            record_path(home, item.digest).unlink(missing_ok=True)
            cancel_mark(home, item.digest).unlink(missing_ok=True)
            _remove_pages(home, item.digest)
            yield item
        elif item.kind == "draft":
            (home / item.digest).unlink(missing_ok=True)
            yield item
        elif item.kind in FOLDERS:
            shutil.rmtree(home / FOLDERS[item.kind] / item.digest, ignore_errors=True)
            yield item
        elif item.digest in _wanted_by_new(home, plan.seen):
            continue
        elif item.kind == "ledger":
            forget(home, item.digest)
            yield item
        elif remove(home, Store(home).reference(Digest(item.kind, item.digest))):
            yield item


def kept_runs(records: Iterable[RunRecord], keep: int | None) -> tuple[RunRecord, ...]:
    """The newest `keep` runs of each recipe or sweep, all for None, and every running one, in the order given.

    One that ended before its stages were known has nothing to keep, and stands in no other's place.
    """
    records = tuple(records)
    if keep is None:
        return records
    by_name: dict[str, list[RunRecord]] = {}
    for each in records:
        if not each.reason:
            by_name.setdefault(each.called, []).append(each)
    newest = {each.run for runs in by_name.values() for each in runs[max(0, len(runs) - keep) :]}
    return tuple(each for each in records if each.run in newest or shown_state(each) == "running")


def _is_busy(home: Path, entry: Entry) -> bool:
    out = Store(home).folder(entry.kind, entry.digest)
    (action,) = reconcile(Ledger((entry,)), observe(entry, out), now())
    return isinstance(action, Attach)


def _run_item(home: Path, record: RunRecord, keep: int | None) -> Item:
    size = sum(each.lstat().st_size for each in (record_path(home, record.run), *_pages_of(home, record.run)))
    why = f"not among the newest {keep} of {record.called}"
    return Item(kind="run", digest=record.run, name=record.called, bytes=size, why=why)


def _pages_of(home: Path, run: str) -> list[Path]:
    """The pages about a run, alone or beside others."""
    return [each for each in (home / "pages").glob("[!.]*.html") if run in each.name]


def _remove_pages(home: Path, run: str) -> None:
    """Remove the pages about a run, and the names that led to them."""
    for each in _pages_of(home, run):
        each.unlink(missing_ok=True)
    for each in (home / "pages").glob("[!.]*.html"):
        if each.is_symlink() and not each.exists():
            each.unlink(missing_ok=True)


def _artifact_item(found: Found, names: Mapping[str, str]) -> Item:
    why = "no kept run refers to it" if found.finished else "left by an attempt that ended"
    name = names.get(found.digest, found.kind)
    return Item(kind=found.kind, digest=found.digest, name=name, bytes=_size(found.path), why=why)


def _ledger_items(book: Book, known: set[str]) -> Iterator[Item]:
    for path in sorted(book.root.glob("*")):
        if path.name not in known:
            entry = book.latest(path.name)
            name = entry.stage if entry else path.name
            yield Item(kind="ledger", digest=path.name, name=name, bytes=_size(path), why="its output is gone")


def _array_items(home: Path, kept: Container[str]) -> Iterator[Item]:
    """Scripts and logs of arrays whose elements' outputs are all gone or going."""
    for path in sorted((home / ARRAYS).glob("[!.]*")):
        recent = time.time() - path.stat().st_mtime < CODE_KEPT_S
        if path.name not in kept and not recent:
            why = "nothing that it made is kept"
            yield Item(kind="array", digest=path.name, name="logs of an array", bytes=_size(path), why=why)


def _code_items(home: Path, *, busy: bool) -> Iterator[Item]:
    """Frozen code, when no job is under way that may run it."""
    for path in sorted((home / "code").glob("[!.]*")) if not busy else ():
        recent = time.time() - path.stat().st_mtime < CODE_KEPT_S
        if not recent:
            yield Item(kind="code", digest=path.name, name="frozen code", bytes=_size(path), why="no job runs it")


def _draft_items(home: Path) -> Iterator[Item]:
    """What killed writers left beside what they were writing."""
    for path in sorted(home.rglob(".*.*")):
        about = path.lstat()
        if DRAFT.fullmatch(path.name) and not path.is_dir() and time.time() - about.st_mtime >= CODE_KEPT_S:
            of = path.name[1:].rpartition(".")[0]
            name = str(path.relative_to(home))
            yield Item(kind="draft", digest=name, name=f"draft of {of}", bytes=about.st_size, why="its writer is gone")


def _size(path: Path) -> int:
    return sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir())


def _wanted_by_new(home: Path, seen: frozenset[str]) -> set[str]:
    """Digests of runs that began after the survey."""
    if {path.stem for path in (home / "runs").glob("[!.]*.json")} <= seen:
        return set()
    return {digest for each in scan_runs(home).records if each.run not in seen for digest in each.digests}
