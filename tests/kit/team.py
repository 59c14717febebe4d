"""The servers for a team as they are shipped: what docs/operator.md has root type, and what systemd would start."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request

import psutil

from infra.loopback import open_url
from infra.servers import MLFLOW, PREFECT
from tests.kit.polling import until
from tests.kit.postgres import Postgres, postgres
from tests.kit.servers import free_ports

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "infra" / "team"
PAGE = (ROOT / "docs" / "operator.md").read_text()
SECRETS, CHECKOUT = "/etc/xclr", "/opt/xclr"  # on the machine of the page and of the units
PORTS = {"prefect": 4200, "mlflow": 5000}
Places = Mapping[str, object]  # of that machine, and what stands for each on this one


class Team(NamedTuple):
    """Servers that are up."""

    database: Postgres
    secrets: Path
    addresses: Mapping[str, str]
    processes: tuple[psutil.Process, ...]

    @property
    def client(self) -> dict[str, str]:
        """What the page's worker has in its environment, to reach them."""
        said = variables(self.secrets / "worker.env")
        known = {name: value for name, value in said.items() if name.startswith(("PREFECT_", "MLFLOW_"))}
        return known | {
            "PREFECT_API_URL": f"{self.addresses['prefect']}/api", "MLFLOW_TRACKING_URI": self.addresses["mlflow"]
        }  # fmt: skip

    def told(self) -> dict[str, str]:
        """What others may read of them, by where: their command lines, the databases, PostgreSQL's log."""
        family = [each for first in self.processes for each in (first, *first.children(recursive=True))]
        lines = {f"ps {each.pid}": " ".join(each.cmdline()) for each in family}
        return lines | {name: self.database.dump(name) for name in PORTS} | {"postgres.log": self.database.log}


@contextmanager
def serving_team(secrets: Path) -> Iterator[Team]:
    """PostgreSQL and what the units start, after the page's commands; files lie beside the secrets."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    places = {SECRETS: secrets, "%S": secrets.parent, "runuser -u postgres -- ": ""}
    places |= {f":{was}": f":{ports[name]}" for name, was in PORTS.items()}
    places |= {f"port {was}": f"port {ports[name]}" for name, was in PORTS.items()}
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        type_commands("databases.sql", places, **database.superuser)
        processes = [stack.enter_context(_started(name, places, database.port)) for name in PORTS]
        addresses = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        for server, process in zip((PREFECT, MLFLOW), processes, strict=True):
            _wait(process, addresses[server.name] + server.health)
        type_commands("users/create", places)
        yield Team(database, secrets, addresses, tuple(psutil.Process(each.pid) for each in processes))


def here(text: str, places: Places) -> str:
    """A text about the page's machine, about this one."""
    text = text.replace(f"{CHECKOUT}/.venv/bin", str(Path(sys.executable).parent)).replace(CHECKOUT, str(ROOT))
    for place, ours in places.items():
        text = text.replace(place, str(ours))
    return text


def type_commands(word: str, places: Places, **environment: str) -> None:
    """Type the page's commands for a team, the block in which a word is."""
    section = PAGE[PAGE.index("## Servers for a team") :]
    (block,) = [each for each in re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL) if word in each]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", here(block, places)],
        env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def variables(path: Path) -> dict[str, str]:
    """What a file of NAME=value lines says."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def passwords(secrets: Path) -> dict[str, str]:
    """The passwords and keys of the page's files, by file and name."""
    said = {(path.stem, *pair) for path in secrets.glob("*.env") for pair in variables(path).items()}
    wanted = re.compile("PASSWORD|AUTH_STRING|SECRET")
    return {f"{file} {name}": value.rpartition(":")[2] for file, name, value in said if wanted.search(name)}


def service(name: str, places: Places) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that a unit asks of systemd."""
    unit = here((UNITS / f"xclr-{name}.service").read_text(), places)
    lines = [line.partition("=")[::2] for line in unit.splitlines()]
    environment = dict(pair.split("=", 1) for key, value in lines if key == "Environment" for pair in value.split())
    (file,) = [variables(Path(value)) for key, value in lines if key == "EnvironmentFile"]
    (command,) = [shlex.split(value) for key, value in lines if key == "ExecStart"]
    return command, environment | file


@contextmanager
def _started(name: str, places: Places, database: int) -> Iterator[subprocess.Popen[bytes]]:
    """What a unit starts, with no more of this environment than systemd gives; MLflow with one process of its two."""
    command, environment = service(name, places)
    kept = {each: os.environ[each] for each in ("PATH", "PYTHONPATH", "LANG") if each in os.environ}
    environment |= {**kept, "PGPORT": str(database), "MLFLOW_WORKERS": "1"}
    with Path(str(places["%S"]), f"{name}.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=120)


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    """Until a server answers; one that ended fails the test."""

    def answers() -> bool:
        assert process.poll() is None, f"{url}: the server ended"
        with suppress(OSError), open_url(Request(url), timeout=5) as answer:
            return answer.status == 200
        return False

    until(answers, timeout_s=600)  # both databases are made meanwhile
