"""Durable checkpoints: written whole or not at all, loaded as tensors and never as programs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Weights and optimiser after `step` steps."""

    path: Path
    step: int


def save(directory: Path, step: int, state: dict[str, Any]) -> Checkpoint:
    """Write step-<n>.pt (a temporary file, flushed to disk, then renamed) and drop all but the newest KEPT."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step-{step:09d}.pt"
    write_tensors(path, state | {"step": step})
    for old in sorted(directory.glob("step-*.pt"))[:-KEPT]:
        old.unlink()
    return Checkpoint(path, step)


def latest(directory: Path) -> Checkpoint | None:
    """The newest durable checkpoint."""
    paths = sorted(directory.glob("step-*.pt"))
    return Checkpoint(paths[-1], int(paths[-1].stem.removeprefix("step-"))) if paths else None


def load(checkpoint: Checkpoint) -> dict[str, Any]:
    """The state that was saved."""
    state: dict[str, Any] = torch.load(checkpoint.path, map_location="cpu", weights_only=True)
    return state


def write_tensors(path: Path, state: dict[str, Any]) -> None:
    """torch.save that a crash cannot leave half-written."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
