"""Which score a person means, and what it was made of."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from infra.home.runs import RunRecord, read_runs
from infra.lineage import Link, Links, artifact_of, trace
from infra.tracking.metrics import CI95, eval_name
from xclr import schema
from xclr.artifact import Artifact, Digest
from xclr.errors import StoreError
from xclr.evaluation.stages import COMPARISON, SUITE
from xclr.record import records_named
from xclr.report.tables import COLUMNS, rank
from xclr.stage import network_name
from xclr.store import MANIFEST, Store

Row = Mapping[str, Any]
PAGED = {column.key for _, column in COLUMNS}  # scores that are columns of the tables
NEAR = 6  # names of which one may be meant
GONE = "gone"  # in place of the digest of what nobody can name any more


class Wanted(NamedTuple):
    """A score as a person names it: as MLflow or a table does; of a method and seed, or of the first that has it."""

    metric: str
    method: str | None = None
    seed: int | None = None


class Traced(NamedTuple):
    """A score, the run that has it, others of that name, and its chain, the suite's output first."""

    run: RunRecord
    row: Row
    others: tuple[Row, ...]
    links: Links


def trace_score(home: Path, wanted: Wanted, run: str | None = None) -> Traced:
    """The chain of a score of the newest run that has some, or of the newest of a name, and what is wrong with it.

    Raises StoreError with the nearest names for a score, method, seed or run that is not there.
    """
    store = Store(home)
    record, rows = _scored(store, run)
    row, *others = _chosen(rows, wanted)
    if (suite := _suite_of(store, record, row)) is not None:
        return Traced(record, row, tuple(others), trace(store, [suite], check=True))
    checkpoint = artifact_of(store, row["checkpoint"])
    own = {
        "kind": SUITE.name,
        "part": row["suite"],
        "path": str(store.root / SUITE.name),
        "inputs": (row["checkpoint"],),
    }
    gone = Link(digest=GONE, fault="its output was removed", **own)
    return Traced(record, row, tuple(others), {GONE: gone} | trace(store, [checkpoint], check=True))


def title_of(row: Row) -> str:
    """Whose score it is, as tables name it."""
    return network_name(row["method"], row["graph"], row["seed"])


def metric_of(row: Row) -> str:
    """What MLflow calls a score."""
    return eval_name(row["suite"], row["split"], row["metric"])


def _scored(store: Store, run: str | None) -> tuple[RunRecord, list[Row]]:
    """The newest run that has scores, with these."""
    records = records_named(store.home, read_runs(store.home), run)
    for record in reversed(records):
        if rows := list(_rows_of(store, record)):
            return record, rows
    last = records[-1]
    raise StoreError(f"no scores of {last.run} in {store.home} ({last.state})", f"xclr retry {last.run}")


def _rows_of(store: Store, record: RunRecord) -> Iterator[Row]:
    """The scores of a run: its table's, else those of the suites that it planned."""
    for each in _table_of(store, record) or _made(store, SUITE.name, record.digests):
        yield from schema.read(each.path / "scores.parquet", schema.SCORES).to_pylist()


def _table_of(store: Store, record: RunRecord) -> list[Artifact]:
    return _made(store, COMPARISON.name, [record.scores] if record.scores else [])


def _made(store: Store, kind: str, digests: Iterable[str]) -> list[Artifact]:
    """The outputs of a kind that are there, of these digests."""
    named = [store.reference(Digest(kind, each)) for each in digests]
    return [each for each in named if (each.path / MANIFEST).exists()]


def _chosen(rows: Sequence[Row], wanted: Wanted) -> list[Row]:
    """The score that is meant, and then the others of its name, of other methods and seeds; the last method first."""
    named = [each for each in rows if _key(each) == _key_of(rows, wanted.metric)]
    named.sort(key=lambda each: each["seed"])
    named.sort(key=lambda each: rank(each["method"], each["graph"]), reverse=True)
    methods = [name for each in named for name in _callings(each)]
    if wanted.method is not None and wanted.method not in methods:
        raise StoreError(f"no method {wanted.method!r} has this score", f"there are: {_listed(methods)}")
    meant = [
        each for each in named if wanted.method in {None, *_callings(each)} and wanted.seed in {None, each["seed"]}
    ]
    if not meant:
        raise StoreError(f"no score of seed {wanted.seed}", f"there are: {_listed(map(title_of, named))}")
    return [meant[0], *(each for each in named if each is not meant[0])]


def _callings(row: Row) -> tuple[str, str]:
    """A method, and a method with its graph, which two of one name have apart."""
    return row["method"], network_name(row["method"], row["graph"])


def _key_of(rows: Sequence[Row], metric: str) -> tuple[str, str, str]:
    """The suite, split and metric that a name stands for."""
    asked, found = _words(metric), dict.fromkeys(_key(each) for each in rows)
    matching = [key for key in found if asked in _names(key)]
    whole = [key for key in matching if asked == _spelled(*key)]
    paged = [key for key in matching if key in PAGED]
    for keys in (whole, matching, paged):
        if len(keys) == 1:
            return keys[0]
    names = {metric_of(each) for each in rows if not matching or _key(each) in matching}
    if matching:
        raise StoreError(f"{metric!r} may be several scores", "name one: " + _listed(sorted(names)))
    near = difflib.get_close_matches(metric, names, n=NEAR, cutoff=0.4) or sorted(names)[:NEAR]
    raise StoreError(f"no score {metric!r} in this run", f"the nearest: {_listed(near)}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _key(row: Row) -> tuple[str, str, str]:
    return row["suite"], row["split"], row["metric"]


def _names(key: tuple[str, str, str]) -> set[str]:
    """All that a score may be called."""
    suite, _, metric = key
    headings = {_words(column.heading) for _, column in COLUMNS if column.key == key}
    return {_spelled(*key), _spelled(suite, metric), _spelled(suite), *headings}


def _spelled(*parts: str) -> str:
    return _words(" ".join(dict.fromkeys(parts)))


def _words(name: str) -> str:
    """A name without what only MLflow's has, in small letters, one space between words, numbers without zeros before.

    A word that stands twice, as in gap_gap, stands once.
    """
    words = re.split(r"[/_\s]+", name.strip().lower().removeprefix("eval/").removesuffix(f"/{CI95}"))
    return " ".join(dict.fromkeys(re.sub(r"(?<!\d)0+(?=\d)", "", each) for each in words))


def _suite_of(store: Store, record: RunRecord, row: Row) -> Artifact | None:
    """The suite's output that a score stands in; None where it is gone."""
    digests = [each for table in _table_of(store, record) for each in store.manifest(table).inputs]
    for suite in _made(store, SUITE.name, digests or record.digests):
        manifest = store.manifest(suite)
        if row["suite"] == manifest.config["suite"] and row["checkpoint"] in manifest.inputs:
            return suite
    return None
