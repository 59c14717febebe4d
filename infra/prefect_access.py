"""Who may use the Prefect server of a STATE: whoever can read a file there that is its owner's alone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

NAME = "prefect-auth"  # in STATE: user:password, as Prefect's settings and its pages take it
VARIABLE = "PREFECT_API_AUTH_STRING"
ROOT = Path(__file__).parents[1]  # where Prefect's own commands are typed
MARK = "# of xclr serve for "


def auth_file(state: Path) -> Path:
    """Where the password is."""
    return state.absolute() / NAME


def auth_string(state: Path) -> str:
    """The name and password of this STATE's server, drawn when it is first asked for; the file is mode 600."""
    path = auth_file(state)
    state.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            draft = path.with_suffix(".draft")
            draft.unlink(missing_ok=True)
            _write_private(draft, f"xclr:{secrets.token_urlsafe(24)}")
            draft.rename(path)
    return path.read_text()


@contextmanager
def written_for_prefect(home: Path, state: Path, url: str) -> Iterator[bool]:
    """Let Prefect's own commands find the server: a `.env` in the checkout, for as long as the server is up.

    False where there is one already, which stays as it is.
    """
    path, mark = ROOT / ".env", f"{MARK}{home}"
    if not (ROOT / "prefect.yaml").exists() or (path.exists() and _first_line(path) != mark):
        yield False
        return
    path.unlink(missing_ok=True)
    try:
        _write_private(path, f"{mark}\nPREFECT_API_URL={url}\n{VARIABLE}={auth_string(state)}\n")
    except FileExistsError:  # of another `xclr serve`, at the same moment
        yield False
        return
    try:
        yield True
    finally:
        if _first_line(path) == mark:
            path.unlink(missing_ok=True)


def _first_line(path: Path) -> str:
    try:
        return next(iter(path.read_text().splitlines()), "")
    except OSError:
        return ""


def _write_private(path: Path, text: str) -> None:
    """A new file that its owner alone may read, from its first byte on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
