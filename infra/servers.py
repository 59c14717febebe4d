"""The Prefect and MLflow servers on this machine: found when they are up, started when they are not.

STATE/servers/<name>.json says where a server is and which processes use it; the last user to leave stops it. So a run
that was killed leaves its Prefect server to the next run, and there is never a second one on the same database.
"""

from __future__ import annotations

import base64
import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict

from infra.access import (
    MLFLOW_PASSWORD,
    MLFLOW_USER,
    PREFECT_AUTH,
    ROOT,
    auth_string,
    guard_mlflow,
    mlflow_access,
    prefect_access,
)
from infra.loopback import open_url
from infra.processes import JobId, find_process, process_id, processes_of, send, this_process
from infra.tracking.environment import QUIET
from infra.tracking.links import DATA_OF, Pages, pages_of
from xclr.disk import probed
from xclr.errors import JobError, RecipeError, XclrError
from xclr.store import write_atomically

READY_WITHIN_S = 120
KEPT_EVERY_S = 1.0
STOP_WITHIN_S = 10
LAST_PORT = (1 << 16) - 1
LEAST_ROOM = 32_000_000  # bytes for the databases of both servers and their logs, and the code that jobs run
ASK_WITHIN_S = 30  # a server on a machine where all cores are busy takes more than 5
GATEWAY = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)  # of a proxy before it
UNKNOWN = "of unknown version"  # it wants to know who asks
OURS_ALONE = {"PYTHONSAFEPATH": "1"}  # a prefect.py or logging.py in the working directory is no module of theirs
ACCESS = {"Prefect": [PREFECT_AUTH], "MLflow": [MLFLOW_USER, MLFLOW_PASSWORD]}
STORES = {"sqlite", "postgresql", "mysql", "mssql", "databricks"}  # of MLflow, beside servers; packages bring others
REFUSALS = {"Prefect": b"exception_message", "MLflow": b"www.mlflow.org"}  # what stands in a server's own 401 or 403


class UnreachableError(JobError):
    """A server that does not answer: it may be back at any time."""


class RefusedError(RecipeError):
    """A server that does not know who asks: its owner may have changed the password."""


AWAY = (UnreachableError, RefusedError)  # no reason to lose a training


class Server(NamedTuple):
    """How a server is started, asked whether it is up, and used."""

    name: str
    command: Callable[[Path, int], list[str]]
    health: str
    api: str  # below its address: what clients are given
    environment: Callable[[Path, int], Mapping[str, str]]
    access: Callable[[Path], dict[str, str]]  # what its clients look for in their environment


class Running(BaseModel):
    """A server that was started."""

    model_config = ConfigDict(frozen=True)
    url: str
    process: JobId
    users: tuple[JobId, ...]


def prefect_environment(state: Path) -> dict[str, str]:
    """Settings of Prefect that keep everything below STATE, and quiet."""
    return {
        "PREFECT_HOME": str(state.absolute() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the terminal is the board's; the server keeps the log
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(READY_WITHIN_S),
    }


PREFECT = Server(
    "prefect",
    lambda state, port: [sys.executable, "-m", "infra.prefect_server", str(port)],
    "/api/health",
    "/api",
    lambda state, port: {
        **prefect_environment(state),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        # without it the pages ask the API at port 4200, whatever the server's port is
        "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api",
        **OURS_ALONE,
        "PREFECT_SERVER_API_AUTH_STRING": auth_string(state),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        # without them `prefect deployment run --watch` shows no line of the run's log
        "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
        "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port},http://localhost:{port}",
    },
    prefect_access,
)
MLFLOW = Server(
    "mlflow",
    lambda state, port: [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--app-name", "basic-auth",
        "--backend-store-uri", f"sqlite:///{state.absolute()}/mlflow.db",
        "--artifacts-destination", str(artifacts_of(state)),
    ],
    "/health",
    "",
    lambda state, port: {
        **QUIET, **os.environ, **OURS_ALONE, **guard_mlflow(state),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes that wait to judge language models
    },
    mlflow_access,
)  # fmt: skip


SERVERS = (PREFECT, MLFLOW)


def artifacts_of(state: Path) -> Path:
    """Where MLflow keeps files."""
    return state.absolute() / "mlflow-artifacts"


def find(server: Server, state: Path) -> Running | None:
    """The server of this STATE, when it is up."""
    running = _noted(server, state)
    return running if running and _answers(running.url + server.health) else None


def left_behind(state: Path) -> dict[str, Running]:
    """The servers of this STATE that are up, or coming up, though all who used them were killed."""
    return {each.name: found for each in SERVERS if (found := _unused(each, state))}


def end_left_behind(state: Path) -> None:
    """End these, but for those that somebody is starting now."""
    for server in SERVERS:
        if _unused(server, state):
            with suppress(BlockingIOError), _locked(server, state, fcntl.LOCK_EX | fcntl.LOCK_NB):
                if running := _unused(server, state):  # still, now that nobody else may change it
                    _end(server, state, running)


@contextmanager
def using(server: Server, state: Path, port: int = 0) -> Iterator[str]:
    """The address of the server of this STATE, started first when it is not up, stopped after its last user."""
    me = this_process()
    with _locked(server, state):
        wanted = port or _port_of_others(server, state)  # one that is dying now is forgotten once it is not adopted
        running = _adopt(server, state) or _start(server, state, wanted)
        users = tuple(each for each in running.users if each != me and find_process(each))
        _write(server, state, running.model_copy(update={"users": (*users, me)}))
    try:
        yield running.url
    finally:
        with _locked(server, state):
            _leave(server, state, me)


@contextmanager
def kept_up(server: Server, state: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Start a server that is in use again where it was, should it end while the block lasts, and say so."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(KEPT_EVERY_S):
            try:
                if _start_again(server, state, over):
                    say(f"the {server.name} server had ended and was started again; the run goes on")
            except (XclrError, OSError) as error:
                say(f"the {server.name} server has ended and does not start again; the run goes on\n  {error}")
                return

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


def _start_again(server: Server, state: Path, over: threading.Event) -> bool:
    """Where its last address was, for all its users, unless one of them was first."""
    if _noted(server, state) is not None:
        return False
    with _locked(server, state):
        last = _last(server, state)
        if last is None or find_process(last.process) or over.is_set():
            return False
        _start(server, state, urlsplit(last.url).port or 0, last.users)
        return True


def experiments(mlflow: str, auth: str) -> dict[str, Pages]:
    """The pages of each recipe's experiment of an MLflow server, newest first, by the recipe's name."""
    body = json.dumps({"max_results": 40, "order_by": ["last_update_time DESC"]}).encode()
    request = urllib.request.Request(  # noqa: S310 - our own loopback address
        f"{mlflow}/api/2.0/mlflow/experiments/search", body, {"Content-Type": "application/json", **_known(auth)}
    )
    with open_url(request, timeout=30) as answer:
        found = json.load(answer).get("experiments", [])
    tags = {each["name"]: {tag["key"]: tag["value"] for tag in each.get("tags", ())} for each in found}
    return {
        each["name"]: pages_of(mlflow, each["experiment_id"], tags[each["name"]])
        for each in found
        if each["name"] != "Default" and DATA_OF not in tags[each["name"]]
    }


def check_ports(ports: Mapping[str, tuple[Server, int]], state: Path) -> None:
    """Raise RecipeError, before any server starts, for ports that those of this STATE that are not up cannot have.

    ports: by the option that says which; 0 is any that is free.
    """
    starting = {option: port for option, (server, port) in ports.items() if port and not find(server, state)}
    for option, port in starting.items():
        check_port(port, f"{option} ")
    if len(set(starting.values())) < len(starting):
        options = " and ".join(starting)
        raise RecipeError(f"{options} are both {next(iter(starting.values()))}", "give each server a port of its own")


def check_port(port: int, option: str = "") -> None:
    """Raise RecipeError for a port of the loopback interface that there is not, or that nobody here can have."""
    if not 0 <= port <= LAST_PORT:
        raise RecipeError(f"{option}{port}: ports go up to {LAST_PORT}", "choose one from 1024 on, or 0 for any")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError as error:
            raise RecipeError(f"{option}{port}: you may not use this port", "choose one from 1024 on") from error
        except OSError as error:
            raise RecipeError(
                f"port {port} is in use", "choose another port, or end the program that has it"
            ) from error


def access_to(url: str, state: Path) -> dict[str, str]:
    """What the environment of a client of a server's API needs: nothing where the server is not of this STATE."""
    for server in SERVERS:
        running = _noted(server, state)
        if running and url.rstrip("/") == running.url + server.api:
            return server.access(state)
    return {}


def check_prefect(url: str, auth: str | None = None) -> str:
    """Ask the Prefect API at a URL for its version, and return it; `auth` is user:password.

    Raises JobError when nothing answers within ASK_WITHIN_S seconds, RecipeError when something else does or when the
    server's major.minor is not this client's: Prefect's clients and servers are only tried together within one.
    """
    answer = _ask("Prefect", url, "/admin/version", "PREFECT_API_URL", auth)
    found = _version("Prefect", url, answer and _unquoted(answer), "PREFECT_API_URL")
    mine = Version(metadata.version("prefect"))
    if found is not None and found.release[:2] != mine.release[:2]:
        raise _mismatch("Prefect", url, found, mine, f"use a server {mine.major}.{mine.minor}.*")
    return str(found or UNKNOWN)


def check_mlflow(uri: str, auth: str | None = None) -> str:
    """Ask the MLflow server at a URI for its version, and return it; the address of a database passes.

    auth: user:password.

    Raises UnreachableError when nothing answers within ASK_WITHIN_S seconds (MLflow's own client tries for minutes),
    RefusedError when it does not know who asks, RecipeError when the URI is no address of MLflow, when something else
    answers, or when the server's major differs from this client's or its minor is older: a newer server keeps the calls
    of older clients, an older one lacks calls that this client makes.
    """
    scheme = urlsplit(uri).scheme
    if scheme not in {"http", "https"}:
        _check_store(scheme.partition("+")[0])
        return metadata.version("mlflow")
    answer = _ask("MLflow", uri, "/version", "MLFLOW_TRACKING_URI", auth)
    found = _version("MLflow", uri, answer, "MLFLOW_TRACKING_URI")
    mine = Version(metadata.version("mlflow"))
    if found is not None and (found.major != mine.major or found.minor < mine.minor):
        raise _mismatch("MLflow", uri, found, mine, f"use a server {mine.major}.{mine.minor} or a newer {mine.major}.*")
    return str(found or UNKNOWN)


def _check_store(scheme: str) -> None:
    """Raise RecipeError for what MLflow takes for no address, or for a folder, where it keeps no runs any more."""
    if scheme not in STORES | {each.name for each in metadata.entry_points(group="mlflow.tracking_store")}:
        begins = f"begins with {scheme}:" if scheme else "has no scheme"
        remedy = "it is http://HOST:PORT, https://HOST, or a database such as postgresql://USER@HOST/NAME"
        raise RecipeError(f"MLFLOW_TRACKING_URI {begins}, which MLflow does not know", remedy)


def without_secrets(url: str) -> str:
    """A URL without user, password, query, fragment and last slash: fit to be printed."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


def _ask(name: str, url: str, path: str, variable: str, auth: str | None = None) -> str | None:
    """The body of a short answer; None when the server wants to know who asks."""
    shown = _address(url, variable)
    who = auth or unquote(urlsplit(url).netloc.rpartition("@")[0])
    try:
        request = urllib.request.Request(shown + path, headers=_known(who) if who else {})  # noqa: S310 - the user's own URL
        with open_url(request, timeout=ASK_WITHIN_S) as answer:
            return str(answer.read(10_000).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        body = error.read(1000)
        others = any(sign in body for of, sign in REFUSALS.items() if of != name)
        if error.code == HTTPStatus.UNAUTHORIZED and who and not others:
            where = " and ".join(ACCESS[name])
            remedy = f"correct {where}, or what stands before the @ of {variable}"
            raise RefusedError(f"the {name} server at {shown} does not know who asks", remedy) from error
        if error.code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} and not others:
            return None
        if error.code in GATEWAY:
            raise _unreachable(name, shown, variable, f"HTTP {error.code}") from error
        raise _stranger(name, shown, variable, f"HTTP {error.code}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        said = "no answer in time" if isinstance(reason, TimeoutError) else str(reason)
        raise _unreachable(name, shown, variable, said) from error


def _address(url: str, variable: str) -> str:
    """Where a URL leads, without secrets; raises RecipeError when it leads nowhere."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.hostname and " " not in parts.netloc and parts.port != 0:
            return without_secrets(url)
    raise RecipeError(f"{variable} is no address", "it is http://HOST:PORT, or https://HOST")


def _unreachable(name: str, shown: str, variable: str, said: str) -> UnreachableError:
    remedy = f"start it, correct {variable}, or unset {variable} to use the one of this HOME (xclr serve)"
    return UnreachableError(f"the {name} server at {shown} cannot be reached: {said}", remedy)


def _known(auth: str) -> dict[str, str]:
    """The header that says who asks."""
    return {"Authorization": "Basic " + base64.b64encode(auth.encode()).decode()}


def _version(name: str, url: str, answer: str | None, variable: str) -> Version | None:
    if answer is None:
        return None
    try:
        return Version(answer)
    except InvalidVersion as error:
        raise _stranger(name, without_secrets(url), variable, "no version") from error


def _unquoted(answer: str) -> str:
    """The text of a JSON string; what is none is no version either. MLflow's answer has no quotes."""
    inside = answer.strip().removeprefix('"').removesuffix('"')
    return inside if answer.strip() == f'"{inside}"' else ""


def _stranger(name: str, shown: str, variable: str, said: str) -> RecipeError:
    hint = "it ends in /api" if name == "Prefect" else "it is the address of the UI"
    return RecipeError(
        f"what answers at {shown} is not {name} ({said})", f"correct {variable} ({hint}), or unset it; see xclr doctor"
    )


def _mismatch(name: str, url: str, server: Version, client: Version, remedy: str) -> RecipeError:
    message = f"the {name} server at {without_secrets(url)} is {server}, the client here is {client}"
    return RecipeError(message, f"{remedy}, or install {name.lower()} {server} here")


def _noted(server: Server, state: Path) -> Running | None:
    """The server that was started last and has not ended, whether or not it answers yet."""
    running = _last(server, state)
    return running if running and find_process(running.process) else None


def _last(server: Server, state: Path) -> Running | None:
    """The server that was started last, and has not been stopped by us."""
    with suppress(OSError, ValueError):
        return Running.model_validate_json(_note(server, state).read_text())
    return None


def _port_of_others(server: Server, state: Path) -> int:
    """Where those look for it who used a server that ended by itself; 0 for none."""
    last = _last(server, state)
    return urlsplit(last.url).port or 0 if last and any(map(find_process, last.users)) else 0


def _adopt(server: Server, state: Path) -> Running | None:
    """The server of this STATE, once it answers: its starter may have been killed; one that never does is ended."""
    running = _noted(server, state)
    if running is None:
        return None
    try:
        _wait(server, state, running)
    except JobError:
        _end(server, state, running)
        return None
    return running


def _unused(server: Server, state: Path) -> Running | None:
    running = _noted(server, state)
    return running if running and not any(map(find_process, running.users)) else None


def _leave(server: Server, state: Path, me: JobId) -> None:
    running = find(server, state)
    if running is None:
        return
    users = tuple(each for each in running.users if each != me and find_process(each))
    if users:
        _write(server, state, running.model_copy(update={"users": users}))
    else:
        _end(server, state, running)


def _start(server: Server, state: Path, port: int, users: tuple[JobId, ...] = ()) -> Running:
    if port:
        check_port(port)
    else:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    log = _log(server, state)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        process = subprocess.Popen(
            server.command(state, port),
            env={**os.environ, **server.environment(state, port)},
            stdout=stream,
            stderr=stream,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    running = Running(url=f"http://127.0.0.1:{port}", process=process_id(process.pid), users=users)
    try:
        _write(server, state, running)  # before it is waited for: whoever comes after a killed starter finds it
        _wait(server, state, running)
    except BaseException:
        _end(server, state, running)
        raise
    return running


def _wait(server: Server, state: Path, running: Running) -> None:
    """Until a server answers; raises JobError when it ends before, or takes too long."""
    deadline = time.monotonic() + READY_WITHIN_S
    while not _answers(running.url + server.health):
        if not find_process(running.process) or time.monotonic() > deadline:
            raise probed(state) or JobError(f"the {server.name} server did not start", f"see {_log(server, state)}")
        time.sleep(0.1)


def _end(server: Server, state: Path, running: Running) -> None:
    """Stop a server and all that it started, and forget it."""
    family = list(processes_of(running.process))
    for each in family:
        send(each, signal.SIGTERM)
    deadline = time.monotonic() + STOP_WITHIN_S
    while find_process(running.process) and time.monotonic() < deadline:
        time.sleep(0.05)
    for each in family:
        send(each, signal.SIGKILL)
    _note(server, state).unlink(missing_ok=True)


def _answers(url: str) -> bool:
    try:
        with open_url(urllib.request.Request(url), timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _note(server: Server, state: Path) -> Path:
    return state / "servers" / f"{server.name}.json"


def _log(server: Server, state: Path) -> Path:
    return _note(server, state).with_suffix(".log")


def _write(server: Server, state: Path, running: Running) -> None:
    write_atomically(_note(server, state), running.model_dump_json())


@contextmanager
def _locked(server: Server, state: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    path = _note(server, state).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, how)
        yield
