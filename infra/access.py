"""Who may use the servers of a STATE: whoever can read a file there that is its owner's alone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

NAME = "auth"  # in STATE: user:password, as Prefect's settings and its pages take it
USERS = "mlflow-users"  # in STATE: of MLflow's server, which knows one
PREFECT_AUTH = "PREFECT_API_AUTH_STRING"
MLFLOW_USER, MLFLOW_PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
ROOT = Path(__file__).parents[1]  # where Prefect's own commands are typed
MARK = "# of xclr serve for "


def auth_file(state: Path) -> Path:
    """Where the password is."""
    return state.absolute() / NAME


def auth_string(state: Path) -> str:
    """The name and password of this STATE's servers, drawn when it is first asked for; the file is mode 600."""
    path = auth_file(state)
    state.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            draft = path.with_suffix(".draft")
            draft.unlink(missing_ok=True)
            _write_private(draft, f"xclr:{secrets.token_urlsafe(24)}")
            draft.rename(path)
    return path.read_text()


def prefect_access(state: Path) -> dict[str, str]:
    """What Prefect's clients look for in their environment."""
    return {PREFECT_AUTH: auth_string(state)}


def mlflow_access(state: Path) -> dict[str, str]:
    """What MLflow's clients look for in their environment."""
    user, _, password = auth_string(state).partition(":")
    return {MLFLOW_USER: user, MLFLOW_PASSWORD: password}


def mlflow_auth(environment: Mapping[str, str]) -> str | None:
    """user:password that MLflow's client would send with this environment."""
    user, password = environment.get(MLFLOW_USER), environment.get(MLFLOW_PASSWORD)
    return f"{user}:{password}" if user and password else None


def guard_mlflow(state: Path) -> dict[str, str]:
    """Let MLflow's server know one user, its owner, from now on; returns what it looks for in its environment.

    Its list of users is made anew, so that what stands there is what stands in the file.
    """
    for each in state.absolute().glob(f"{USERS}*"):
        each.unlink()
    settings = {
        "database_uri": f"sqlite:///{state.absolute()}/{USERS}.db",
        "default_permission": "NO_PERMISSIONS",
        "grant_default_workspace_access": "false",
        "auth_cache_ttl_seconds": "86400",  # else every request pays for a slow hash
    }
    path = state.absolute() / f"{USERS}.ini"
    path.write_text("\n".join(["[mlflow]", *(f"{name} = {value}" for name, value in settings.items()), ""]))
    user, _, password = auth_string(state).partition(":")
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(path),
        "MLFLOW_AUTH_ADMIN_USERNAME": user,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),  # of its tokens against forgery
    }


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
        _write_private(path, f"{mark}\nPREFECT_API_URL={url}\n{PREFECT_AUTH}={auth_string(state)}\n")
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
