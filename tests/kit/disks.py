"""Disks as Linux really has them, where this user may mount: small ones, and read-only ones."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes, in memory."""
    place.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def read_only(folder: Path, place: Path) -> Iterator[Path]:
    """A folder as it is seen at another place, where nobody may write."""
    place.mkdir(parents=True)
    _mount("--bind", str(folder), str(place))
    try:
        _mount("-o", "remount,bind,ro", str(place))
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Write until so many bytes are free."""
    with (disk / "filling").open("ab", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(1 << 16))
        except OSError:
            stream.truncate(stream.tell() // 4096 * 4096 - leave)


def refusing(number: int) -> Callable[..., None]:
    """A call of the system that this disk does not know."""

    def call(*arguments: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nobody may mount here: {done.stderr.strip()}")
