"""Hashing again what is stored: does every file still hold what its manifest says, and how is what does not mended."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from infra.home.runs import scan_runs
from xclr.artifact import Artifact, Digest, Manifest
from xclr.errors import StoreError
from xclr.store import MANIFEST, Store


class Verdict(NamedTuple):
    """An artifact, how many bytes were hashed, and what is wrong with it; empty for a sound one."""

    artifact: Artifact
    bytes: int
    fault: str


def found(home: Path, digests: Collection[str] | None = None) -> list[Artifact]:
    """The finished artifacts of a HOME, of these digests or all."""
    paths = sorted(Store(home).root.glob(f"*/*/{MANIFEST}"))
    named = [Artifact(path.parts[-3], Digest(path.parts[-3], path.parts[-2]), path.parent) for path in paths]
    return [each for each in named if digests is None or str(each.digest) in digests]


def verify(home: Path, artifacts: Collection[Artifact]) -> Iterator[Verdict]:
    """Hash every file of each artifact; one verdict an artifact."""
    store = Store(home)
    for artifact in artifacts:
        size, fault = 0, ""
        try:
            manifest: Manifest = store.manifest(artifact)
            size = sum(each.bytes for each in manifest.files)
            store.verify(artifact)
        except StoreError as error:
            fault = error.message
        yield Verdict(artifact, size, fault)


def runs_that_make(home: Path, digests: Collection[str]) -> list[str]:
    """Runs, the newest first and as few as that allows, which together planned these artifacts."""
    lacking, found = set(digests), []
    for record in reversed(scan_runs(home).records):
        if not lacking.isdisjoint(record.digests):
            lacking.difference_update(record.digests)
            found.append(record.run)
    return found
