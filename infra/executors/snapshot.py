"""The code that jobs run: a copy of the library made when a run begins, so that later edits change no queued job."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import infra
import xclr
from xclr.owncode import COMMIT, commit_of

PACKAGES = {each.__name__: Path(each.__path__[0]) for each in (xclr, infra)}  # all that a job imports of ours
LEFT_OUT = ("__pycache__", "*.pyc", ".*", "_pipeline")  # the last: of a wheel, in which infra lies below xclr


def freeze(home: Path) -> Path:
    """HOME/code/<hash>: the packages as they are now; made once for each state of them."""
    final = home / "code" / _hash()
    if not final.is_dir():
        draft = final.with_name(f".{final.name}.{secrets.token_hex(4)}")
        try:
            for name, source in PACKAGES.items():
                shutil.copytree(source, draft / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
            if (commit := commit_of(PACKAGES["xclr"].parent)) is not None:
                (draft / COMMIT).write_text(commit)
            draft.rename(final)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            if not final.is_dir():  # else another process was first
                raise
    os.utime(final)  # gc goes by it
    return final


def _hash() -> str:
    found = hashlib.sha256()
    for name, source in sorted(PACKAGES.items()):
        for path in _files(source):
            found.update(f"{name}/{path.relative_to(source).as_posix()}\0".encode())
            found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]


def _files(source: Path) -> Iterator[Path]:
    for path in sorted(source.rglob("*")):
        parts = path.relative_to(source).parts
        hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
        if path.is_file() and not hidden and path.suffix != ".pyc":
            yield path
