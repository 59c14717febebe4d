"""Trainings that wait at a step for as long as a test wants, however fast the machine is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from infra.executors import snapshot
from xclr.store import write_atomically


@contextmanager
def holdable() -> Iterator[None]:
    """Freeze `tests.kit.hold` beside the code of jobs that are submitted meanwhile, where Python imports it."""
    with mock.patch.dict(snapshot.PACKAGES, {"sitecustomize": Path(__file__).with_name("hold")}):
        yield


def hold(out: Path, step: int) -> None:
    """Let the training of a directory wait when that step is done."""
    write_atomically(out / "hold", str(step))


def release(out: Path) -> None:
    """Let it go on."""
    (out / "hold").unlink(missing_ok=True)
