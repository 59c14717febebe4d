"""What of a stage's output MLflow holds, and of what it is told the place, the size and the hash."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from infra.cluster import Tracking
from infra.tracking.metrics import Made, write_table
from xclr.artifact import Artifact, FileEntry, Manifest
from xclr.graph.stages import GRAPH_REPORT
from xclr.stage import Stage
from xclr.store import MANIFEST, Store, describe

SOURCE = "scores.parquet"
SCORES, LISTED = "scores.json", "files.json"  # tables as MLflow's pages show them
FIRST = ("suite", "split", "metric", "value", "ci95", "ci_kind", "n", "method")  # columns that people look for
COMPARISON_PAGE, GRAPH_PAGE = "compare.html", "graph/graph.html"


class Divided(NamedTuple):
    """The files of an artifact that are copied, and those that are named."""

    copied: tuple[FileEntry, ...]
    named: tuple[FileEntry, ...]


class Upload(NamedTuple):
    """A file, and the folder of a run that it goes to; None for the run's own."""

    path: Path
    folder: str | None

    @property
    def name(self) -> str:
        """Its name among the run's files."""
        return f"{self.folder}/{self.path.name}" if self.folder else self.path.name


class Pages(NamedTuple):
    """What a person looks at of a run, by name; `scores` is the digest of the comparison that they show."""

    scores: str
    files: Mapping[str, Path]


def folder_of(stage: Stage) -> str:
    """Where a run has the files of a stage: a suite by its name, so that those of several networks are compared."""
    if stage.kind.judges:
        return stage.kind.part(stage.config)
    if stage.network is not None:
        return stage.level.replace(" ", "-")
    return stage.name.replace(",", "").replace(" ", "-")


def divided(files: Iterable[FileEntry], copy_up_to_mb: float) -> Divided:
    """Files up to a size, in MB of 10^6 bytes, and those that are larger."""
    limit, files = copy_up_to_mb * 1e6, tuple(files)
    return Divided(tuple(each for each in files if each.bytes <= limit), tuple(e for e in files if e.bytes > limit))


def uploads_of(stage: Stage, made: Made, tracking: Tracking, scratch: Path) -> Iterator[Upload]:
    """The files of a finished stage for its run; what is not there as a file yet is written to `scratch`."""
    folder, (copied, named) = folder_of(stage), divided(made.manifest.files, tracking.copy_up_to_mb)
    yield Upload(made.artifact.path / MANIFEST, folder)
    for each in copied:
        inner = str(Path(each.path).parent)
        yield Upload(made.artifact.path / each.path, folder if inner == "." else f"{folder}/{inner}")
    if named:
        yield Upload(_write(scratch / LISTED, rows_of(made.artifact.path, named)), folder)
    if _has_scores(made.manifest):
        yield Upload(_write(scratch / SCORES, score_rows(made.artifact)), folder)


def tables_of(uploads: Iterable[Upload]) -> list[str]:
    """Those of the files that MLflow's pages are to show as tables."""
    return [each.name for each in uploads if each.path.name in {SCORES, LISTED}]


def joined_tables(before: str, names: Iterable[str]) -> str:
    """The tag that lists a run's tables, with further ones."""
    listed = json.loads(before or "[]")
    there = {each["path"] for each in listed}
    return json.dumps(listed + [{"path": each, "type": "table"} for each in names if each not in there])


def rows_of(place: Path, files: Iterable[FileEntry]) -> list[dict[str, Any]]:
    """Where files are, and how to tell that they are the same."""
    return [{"path": str(place / each.path), "bytes": each.bytes, "sha256": each.sha256} for each in files]


def score_rows(artifact: Artifact) -> list[dict[str, Any]]:
    """The rows of a stage's scores, what people look for first."""
    from xclr import schema

    rows = schema.read(artifact.path / SOURCE, schema.SCORES).to_pylist()
    return [{name: row[name] for name in dict.fromkeys((*FIRST, *row))} for row in rows]


def pages_of(stages: Iterable[Stage], store: Store, scores: str, page: Path) -> Pages:
    """The page of a run and, where one was made, that of its graph."""
    graph = next((store.find(stage.digest) for stage in stages if stage.kind is GRAPH_REPORT), None)
    found = {} if graph is None else {GRAPH_PAGE: graph.path / Path(GRAPH_PAGE).name}
    return Pages(scores, {COMPARISON_PAGE: page} | found)


def page_uploads(pages: Pages, tracking: Tracking, scratch: Path) -> Iterator[Upload]:
    """The pages of a run for the runs of its networks; those that are too large are named."""
    named = []
    for name, path in pages.files.items():
        entry = describe(path.parent, path.name)
        if divided([entry], tracking.copy_up_to_mb).named:
            named += rows_of(path.parent, [entry])
            continue
        link = scratch / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(path)
        yield Upload(link, None if link.parent == scratch else link.parent.name)
    if named:
        yield Upload(_write(scratch / LISTED, named), None)


def _has_scores(manifest: Manifest) -> bool:
    return any(each.path == SOURCE for each in manifest.files)


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text(json.dumps(write_table(rows)), encoding="utf-8")
    return path
