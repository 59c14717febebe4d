"""Whose files are trusted: those that nobody else could have written, where what is read is run or gone on from."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xclr.errors import StoreError

OTHERS = 0o022  # may write: its group, everybody


class Guard:
    """Lets nobody else write to the files that are made meanwhile, by however many threads."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """For as long as the block lasts; what this process makes beside it is guarded too."""
        with self.lock:
            if not self.inside:
                self.before = os.umask(OTHERS)
                os.umask(self.before | OTHERS)
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    os.umask(self.before)


guarded = Guard()


def check_own(path: Path) -> None:
    """Raise StoreError where another user than this one or root could have written a file."""
    seen = path.stat()
    if seen.st_uid not in {os.geteuid(), 0}:
        raise StoreError(f"{path} belongs to {_user(seen.st_uid)}", f"remove it, or make it yours: chown $USER {path}")
    if seen.st_mode & stat.S_IWOTH or (seen.st_mode & stat.S_IWGRP and not _is_private(seen.st_gid)):
        whose = "everybody" if seen.st_mode & stat.S_IWOTH else f"the group {_group(seen.st_gid)}"
        raise StoreError(
            f"{path} may have been written by {whose}", f"look at it, then: chmod go-w {path}; or remove it"
        )


def _is_private(gid: int) -> bool:
    """True for the group that a user has alone, as many systems give each one."""
    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    own = _user(os.geteuid())
    return group.gr_name == own and set(group.gr_mem) <= {own}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
