"""One look at Slurm's queue for every process of a HOME: who comes first asks, the others read what it was told."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from xclr.store import write_atomically

FOLDER = "slurm"  # of HOME
ANSWERS_WITHIN_S = 20


class Look(BaseModel):
    """What squeue printed; `answers` is False where it could not be asked."""

    model_config = ConfigDict(frozen=True)
    answers: bool
    text: str = ""


def look(home: Path | None, form: str, every_s: float) -> Look:
    """The user's jobs, as they were less than `every_s` ago; without a HOME, or one that may be written, as now."""
    place = None if home is None else home / FOLDER / f"{_user()}.json"
    if place is None or not _may_write(place.parent):
        return _ask(form)
    with _turn(place.with_suffix(".lock")) as now:
        with suppress(OSError, ValidationError):
            if abs(now - place.stat().st_mtime) < every_s:
                return Look.model_validate_json(place.read_text())
        seen = _ask(form)
        with suppress(OSError):  # a full disk keeps nobody from looking
            write_atomically(place, seen.model_dump_json())
    return seen


def forget(home: Path | None) -> None:
    """Let the next look be a new one, as after a submission."""
    if home is not None:
        with suppress(OSError):
            (home / FOLDER / f"{_user()}.json").unlink()


def ask(*command: str) -> str:
    """What a program of Slurm prints; raises OSError when it is not there, fails or takes too long."""
    environment = os.environ | {"SLURM_TIME_FORMAT": "%s"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=ANSWERS_WITHIN_S, env=environment
        )
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", "") or str(error)).strip()
        raise OSError(f"{command[0]}: {said}") from error
    return done.stdout


def _ask(form: str) -> Look:
    try:
        return Look(
            answers=True, text=ask("squeue", "--noheader", "--array", "--states=all", "--me", f"--format={form}")
        )
    except OSError:
        return Look(answers=False)


def _user() -> str:
    """Whose jobs, of which cluster."""
    who = f"{os.getuid()} {os.environ.get('SLURM_CONF', '')}"
    return hashlib.blake2b(who.encode(), digest_size=8).hexdigest()


def _may_write(folder: Path) -> bool:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK)
    return False


@contextmanager
def _turn(lock: Path) -> Iterator[float]:
    """Wait for others who look; gives the time by the clock of the file system, whatever this machine's says."""
    with lock.open("w") as stream:
        with suppress(OSError):  # without locks each asks for itself
            fcntl.flock(stream, fcntl.LOCK_EX)
        os.utime(lock)
        yield os.fstat(stream.fileno()).st_mtime
