"""What lies in a HOME's store, what was made of what, and how it is taken away."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from infra.executors.executor import STAGE
from infra.ledger import Book
from xclr.artifact import Artifact, Digest
from xclr.errors import StoreError
from xclr.pipeline import KINDS
from xclr.stage import Stage
from xclr.store import MANIFEST, Store


class Found(NamedTuple):
    """An artifact's directory, finished or not, and what it was made from."""

    kind: str
    digest: str
    path: Path
    finished: bool
    inputs: tuple[str, ...]

    @property
    def artifact(self) -> Artifact:
        """The reference to it."""
        return Artifact(self.kind, Digest(self.kind, self.digest), self.path)


def directories(home: Path) -> Iterator[Found]:
    """All that was made or begun, by kind and digest."""
    for path in sorted(Store(home).root.glob("*/*")):
        if path.is_dir():
            found = Found(path.parent.name, path.name, path, (path / MANIFEST).exists(), ())
            yield found._replace(inputs=_inputs(home, found))


def reachable(roots: Iterable[str], leads: Mapping[str, Iterable[str]]) -> set[str]:
    """The roots and everything that they lead to, however far."""
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest not in seen:
            seen.add(digest)
            waiting.extend(leads.get(digest, ()))
    return seen


def made_of(home: Path, roots: Iterable[str]) -> list[Found]:
    """All that was made, or begun, of these artifacts, however far on; without them."""
    roots, found = set(roots), list(directories(home))
    leads: dict[str, list[str]] = {}
    for each in found:
        for digest in each.inputs:
            leads.setdefault(digest, []).append(each.digest)
    reached = reachable(roots, leads) - roots
    return [each for each in found if each.digest in reached]


def remove(home: Path, artifact: Artifact) -> bool:
    """Remove an artifact, finished or not, and its ledger; False when someone is writing it."""
    try:
        if artifact.path.exists() and not Store(home).remove(artifact):
            return False
        forget(home, artifact.digest)
    except OSError as error:
        place = error.filename or artifact.path
        raise StoreError(f"cannot remove {place}: {error.strerror}", "see who owns it") from error
    return True


def forget(home: Path, digest: str) -> None:
    """Remove the ledger of a digest."""
    notes = Book(home).root / digest
    shutil.rmtree(notes, ignore_errors=not notes.exists())


def _inputs(home: Path, found: Found) -> tuple[str, ...]:
    try:
        if found.finished:
            return Store(home).manifest(found.artifact).inputs
        stage = Stage.from_json((found.path / STAGE).read_text(), KINDS)
        return tuple(str(each.digest) for each in stage.inputs.values())
    except (StoreError, OSError, ValueError, KeyError):  # damaged or older: it says nothing of its inputs
        return ()
