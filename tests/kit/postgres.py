"""PostgreSQL, started for real; its programs refuse to be root, so they are another user's then."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.kit.polling import until
from tests.kit.servers import free_ports
from tests.kit.users import NOBODY

FAST = ("-F", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "shared_buffers=16MB")


class Postgres(NamedTuple):
    """A cluster of databases that is up: passwords on 127.0.0.1, none for its superuser on a socket in the folder."""

    folder: Path
    port: int

    @property
    def superuser(self) -> Mapping[str, str]:
        """What its programs look for in their environment, to be `postgres`."""
        return {"PGHOST": str(self.folder), "PGPORT": str(self.port), "PGUSER": "postgres"}

    @property
    def log(self) -> str:
        """What it said."""
        return (self.folder / "log").read_text()

    def ask(self, database: str, query: str) -> list[str]:
        """The rows that a query gives."""
        return self._say("psql", "--no-align", "--tuples-only", "--command", query, database).splitlines()

    def dump(self, database: str) -> str:
        """All that is in a database."""
        return self._say("pg_dump", database)

    def _say(self, program: str, *arguments: str) -> str:
        command = [programs() / program, *arguments]
        return subprocess.run(command, env=self.superuser, check=True, capture_output=True, text=True).stdout


def programs() -> Path | None:
    """Where Debian has the newest version's; None where there is none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(found, key=lambda path: int(path.parent.name), default=None)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """One that trusts nobody who has no password, and need not survive a power cut."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's folders are closed to other users
    own: dict[str, Any] = {}
    if os.geteuid() == 0:
        own = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        os.chown(folder, NOBODY, NOBODY)
    with (folder / "log").open("ab") as log:
        own |= {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": folder}
        initdb = ["initdb", "--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C"]
        _run([*initdb, "--auth-local=trust", "--auth-host=scram-sha-256", f"--pgdata={folder}/data"], own)
        cluster = Postgres(folder, *free_ports(1))
        place = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-p", str(cluster.port)]
        process = subprocess.Popen([programs() / "postgres", "-D", folder / "data", *FAST, *place], **own)
    try:
        until(lambda: subprocess.run([programs() / "pg_isready", "-q"], env=cluster.superuser).returncode == 0)
        yield cluster
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder)


def _run(command: list[str], own: Mapping[str, Any]) -> None:
    subprocess.run([programs() / command[0], *command[1:]], check=True, **own)
