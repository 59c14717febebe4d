"""Stages made in this process, as the orchestrator makes them."""

from __future__ import annotations

from datetime import UTC, datetime

from xclr.artifact import Artifact, Manifest
from xclr.stage import Stage
from xclr.store import Store, describe


def commit(store: Store, stage: Stage, run) -> Artifact:
    """Run a stage in this process and make its output visible, as the orchestrator does."""
    out = store.begin(stage.digest)
    produced = run(stage, out, no_progress)
    manifest = Manifest(
        kind=stage.kind.name,
        digest=stage.digest,
        inputs=tuple(each.digest for each in stage.inputs.values()),
        config=stage.identity,
        code=stage.kind.code,
        files=tuple(describe(out, name) for name in produced.files),
        stats=produced.stats,
        created=datetime.now(UTC).isoformat(),
    )
    return store.commit(store.reference(stage.digest), manifest)


def no_progress(done: int, total: int, ok: int | None = None) -> None:
    """For runs nobody watches."""
