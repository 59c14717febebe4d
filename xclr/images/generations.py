"""Which generation of an artifact is the current one: HOME/heads/<digest of the first>.json.

An artifact never changes. What is tried again becomes the next generation, whose input is the one before; the file
lists what each of them tried, so that a plan can compute what follows.
"""

from __future__ import annotations

import json
from pathlib import Path

from xclr.artifact import Digest
from xclr.errors import StoreError
from xclr.store import Store, write_atomically

Statuses = tuple[str, ...]
STATUSES: Statuses = (  # what can become of a picture
    "ok", "http_4xx", "http_429", "http_5xx", "redirect", "blocked", "dns", "timeout", "connection", "tls",
    "too_large", "decode", "too_small", "robots", "repeated",
)  # fmt: skip


def read(store: Store, first: Digest) -> tuple[Statuses, ...]:
    """The statuses that each later generation tries again, oldest first; none for an artifact that has only one."""
    path = _path(store, first)
    try:
        return tuple(tuple(map(str, each)) for each in json.loads(path.read_text())["retried"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} cannot be read: {error}", "delete it; the first generation is then current"
        ) from error


def advance(store: Store, first: Digest, statuses: Statuses) -> None:
    """Make a generation current that tries these statuses again."""
    retried = [*read(store, first), statuses]
    write_atomically(_path(store, first), json.dumps({"retried": retried}))


def _path(store: Store, first: Digest) -> Path:
    return store.home / "heads" / f"{first}.json"
