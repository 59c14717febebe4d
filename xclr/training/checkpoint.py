"""Durable checkpoints: written whole or not at all, checked before use, loaded as tensors and never as programs."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from xclr.artifact import sha256_file
from xclr.ownership import check_own
from xclr.store import write_atomically

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """Weights, optimiser and random state after `step` steps."""

    path: Path
    step: int

    @property
    def marker(self) -> Path:
        """What says that the file is whole: its size and hash, and the mean loss since the checkpoint before."""
        return self.path.with_suffix(".json")


def save(directory: Path, step: int, state: dict[str, Any], *, loss: float, keep: int = 2) -> Checkpoint:
    """Write step-<n>.pt, then step-<n>.json, which makes it a checkpoint; keep the newest `keep` and the best.

    The best is the one with the smallest `loss`. Each file is flushed to disk before it is renamed into place.
    """
    directory.mkdir(parents=True, exist_ok=True)
    saved = at(directory, step)
    write_tensors(saved.path, state | {"step": step})
    about = {"step": step, "bytes": saved.path.stat().st_size, "sha256": sha256_file(saved.path), "loss": loss}
    write_atomically(saved.marker, json.dumps(about))
    _drop(directory, keep)
    return saved


def latest(directory: Path) -> Checkpoint | None:
    """The newest checkpoint that is what its marker says; a damaged one is passed over with a warning."""
    for step in sorted(_markers(directory), reverse=True):
        found = at(directory, step)
        if fault := _fault(found):
            log.warning("checkpoint %s is damaged (%s): going on from the one before", found.path, fault)
        else:
            return found
    return None


def at(directory: Path, step: int) -> Checkpoint:
    """The checkpoint of a step, whether it is there or not."""
    return Checkpoint(directory / f"step-{step:09d}.pt", step)


def load(checkpoint: Checkpoint) -> dict[str, Any]:
    """The state that was saved; raises StoreError where another user could have written it."""
    check_own(checkpoint.path)
    state: dict[str, Any] = torch.load(checkpoint.path, map_location="cpu", weights_only=True)
    return state


def read_weights(path: Path) -> dict[str, Any]:
    """A backbone's weights, as a finished training left them."""
    weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["backbone"]
    return weights


def write_tensors(path: Path, state: dict[str, Any]) -> None:
    """torch.save that a crash cannot leave half-written, to a file that its owner alone may write."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)


def _markers(directory: Path) -> dict[int, dict[str, Any]]:
    """The markers by step; one that cannot be read is empty."""
    found = {}
    for path in directory.glob("step-*.json"):
        try:
            found[int(path.stem.removeprefix("step-"))] = json.loads(path.read_text())
        except json.JSONDecodeError:
            found[int(path.stem.removeprefix("step-"))] = {}
    return found


def _fault(checkpoint: Checkpoint) -> str:
    """What is wrong with a checkpoint's file, or nothing."""
    about = _markers(checkpoint.path.parent)[checkpoint.step]
    if not checkpoint.path.is_file():
        return "the file is gone"
    if checkpoint.path.stat().st_size != about.get("bytes"):
        return f"{checkpoint.path.stat().st_size} bytes instead of {about.get('bytes')}"
    return "" if sha256_file(checkpoint.path) == about.get("sha256") else "its content is not what was written"


def _drop(directory: Path, keep: int) -> None:
    """Remove all but the newest `keep`, the best, and files that never became checkpoints."""
    markers = _markers(directory)
    kept = set(sorted(markers)[-keep:]) | {min(markers, key=lambda step: markers[step].get("loss", float("inf")))}
    for step in markers.keys() - kept:
        at(directory, step).marker.unlink(missing_ok=True)  # first, so that a crash leaves no marker without a file
    for path in (*directory.glob("step-*.pt"), *directory.glob(".step-*")):
        if path.name not in {at(directory, step).path.name for step in kept}:
            path.unlink(missing_ok=True)
