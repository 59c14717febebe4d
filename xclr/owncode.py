"""Which code runs: the package's version, a hash of its files, and the commit where that is known."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

import xclr

COMMIT = "commit"  # beside a frozen copy of the package
WITHIN_S = 10


class Code(BaseModel):
    """What made an output; `sha256` is of the package's files by name, `commit` one at which they were so, or after."""

    model_config = ConfigDict(frozen=True)
    version: str
    sha256: str
    commit: str | None = None


@cache
def own_code() -> Code:
    """The code of this process."""
    package = Path(xclr.__file__).parent
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        found.update(f"{path.relative_to(package).as_posix()}\0".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return Code(version=xclr.__version__, sha256=found.hexdigest(), commit=commit_of(package.parent))


def commit_of(root: Path) -> str | None:
    """What is checked out in a repository, or was where a copy was made; None where there is neither."""
    if (root / COMMIT).is_file():
        return (root / COMMIT).read_text().strip()
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=WITHIN_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
