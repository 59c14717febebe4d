"""Servers are asked who they are before anything is sent to them."""

from __future__ import annotations

import fcntl
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata

import pytest
from packaging.version import Version

from infra import servers
from infra.processes import find_process, process_id, processes_of, this_process
from infra.servers import RefusedError, UnreachableError, check_mlflow, check_prefect, without_secrets
from tests.kit.command import call_xclr, command, fails, run_xclr
from tests.kit.databases import give_databases
from tests.kit.polling import until
from xclr.errors import JobError, RecipeError

PREFECT, MLFLOW = (Version(metadata.version(name)) for name in ("prefect", "mlflow"))


@contextmanager
def foreign(body: str, status: int = 200, authorization: str | None = None):
    """The address of a program that gives one answer to everything, or 401 to who does not say who he is."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            known = authorization is None or self.headers.get("Authorization") == authorization
            self.send_response(status if known else 401)
            self.end_headers()
            self.wfile.write(body.encode() if known else b"")

        def log_message(self, *arguments):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent():
    """The address of a program that takes a connection and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        (f"{PREFECT.major}.{PREFECT.minor}.{PREFECT.micro + 1}", True),
        (f"{PREFECT.major}.{PREFECT.minor + 1}.0", False),
        (f"{PREFECT.major - 1}.{PREFECT.minor}.0", False),
    ],
)
def test_prefect_needs_the_same_major_and_minor(version, fits):
    with foreign(json.dumps(version)) as place:
        if fits:
            assert check_prefect(f"http://{place}/api") == version
            return
        with pytest.raises(RecipeError, match=rf"{version}, the client here is {PREFECT}(.|\n)*prefect {version}"):
            check_prefect(f"http://{place}/api")


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        (f"{MLFLOW.major}.{MLFLOW.minor}.0", True),
        (f"{MLFLOW.major}.{MLFLOW.minor + 1}.0", True),
        (f"{MLFLOW.major}.{MLFLOW.minor - 1}.9", False),
        (f"{MLFLOW.major + 1}.{MLFLOW.minor}.0", False),
    ],
)
def test_mlflow_needs_the_same_major_and_no_older_minor(version, fits):
    with foreign(version) as place:
        if fits:
            assert check_mlflow(f"http://{place}") == version
            return
        with pytest.raises(RecipeError, match=f"the MLflow server at http://{place} is {version}, the client"):
            check_mlflow(f"http://{place}/")


@pytest.mark.parametrize(("body", "status"), [("<html>a page</html>", 200), ("not here", 404), ("", 500)])
@pytest.mark.parametrize(("check", "name"), [(check_prefect, "Prefect"), (check_mlflow, "MLflow")])
def test_something_else_on_the_port_is_told_from_a_server(check, name, body, status):
    with (
        foreign(body, status) as place,
        pytest.raises(RecipeError, match=f"what answers at http://{place} is not {name}"),
    ):
        check(f"http://{place}")


@pytest.mark.parametrize("check", [check_prefect, check_mlflow])
def test_a_server_that_is_not_there_is_told_at_once_without_its_password(check, free_port):
    with pytest.raises(JobError, match=rf"http://127.0.0.1:{free_port}/x cannot be reached: .*refused") as caught:
        check(f"http://me:secret@127.0.0.1:{free_port}/x")
    assert "secret" not in str(caught.value)


def test_a_server_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(servers, "ASK_WITHIN_S", 0.5)
    with silent() as place, pytest.raises(UnreachableError, match="no answer in time"):
        check_mlflow(f"http://{place}")


def test_a_proxy_whose_server_is_away_is_no_stranger():
    with foreign("bad gateway", 502) as place, pytest.raises(UnreachableError, match="cannot be reached: HTTP 502"):
        check_mlflow(f"http://{place}")


@pytest.mark.parametrize(
    "uri",
    ["http://no such host:5000", "http://host:port", "http:/host", "htp://host", "localhost:5000", "mlruns", ""],
)  # fmt: skip
def test_an_address_that_is_none_is_told_from_a_server_that_is_away(uri):
    with pytest.raises(RecipeError, match=r"MLFLOW_TRACKING_URI (is no address|begins with|has no scheme)"):
        check_mlflow(uri)


def test_user_and_password_are_sent_but_never_shown():
    with foreign(str(MLFLOW), authorization="Basic bWU6cEBzcw==") as place:
        assert check_mlflow(f"http://me:p%40ss@{place}") == str(MLFLOW)
        assert check_mlflow(f"http://{place}") == servers.UNKNOWN
        with pytest.raises(RefusedError, match=f"the MLflow server at http://{place} does not know who asks") as caught:
            check_mlflow(f"http://{place}", "me:wr0ng")
        assert "MLFLOW_TRACKING_PASSWORD" in caught.value.remedy and "wr0ng" not in str(caught.value)
        with pytest.raises(RecipeError, match="correct PREFECT_API_AUTH_STRING, or what stands"):
            check_prefect(f"http://me:wr0ng@{place}/api")
    assert without_secrets("https://me:p@ss@host:1/api?key=1#x") == "https://host:1/api"


@pytest.mark.parametrize("uri", ["sqlite:////somewhere/mlflow.db", "postgresql+psycopg://me:secret@host/name"])
def test_a_store_that_is_no_server_passes(uri):
    assert check_mlflow(uri) == str(MLFLOW)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_server_whose_starter_is_ended_meanwhile_is_no_orphan(number, tmp_path):
    home = give_databases(tmp_path)
    note = home / "state" / "servers" / "prefect.json"
    starter = subprocess.Popen(command(home, "serve", *map(str, ("--prefect-port", 0, "--mlflow-port", 0))))
    until(note.exists)
    started = servers.Running.model_validate_json(note.read_text())
    starter.send_signal(number)
    starter.wait()
    if number == signal.SIGKILL:
        assert find_process(started.process), "nobody could end it"
        assert list(servers.left_behind(home / "state")) == ["prefect"]
        said = json.loads(run_xclr("doctor", "--json", "--home", str(home), cwd=tmp_path).stdout)
        (line,) = [each for each in said if each["check"] == "left servers"]
        assert f"prefect (process {started.process.split('/')[1]})" in line["found"]
    assert not find_process(started.process)
    assert not note.exists()


@pytest.mark.parametrize(
    ("prefect", "mlflow", "says"),
    [
        (99999, 0, "--prefect-port 99999: ports go up to 65535"),
        (0, 65536, "--mlflow-port 65536: ports go up to 65535"),
        (-1, 0, "--prefect-port -1: ports go up to 65535"),
        (4300, 4300, "--prefect-port and --mlflow-port are both 4300"),
        (0, None, "port [0-9]+ is in use"),
    ],
)
def test_ports_are_looked_at_before_any_server_starts(prefect, mlflow, says, tmp_path):
    with silent() as place:
        taken = int(place.rpartition(":")[2])
        ports = ("--prefect-port", str(prefect), "--mlflow-port", str(taken if mlflow is None else mlflow))
        done = call_xclr("serve", *ports, "--home", "home", cwd=tmp_path)
    fails(done)
    assert re.search(says, done.stderr)
    assert not (tmp_path / "home").exists()


def test_servers_in_use_or_being_started_are_not_ended(tmp_path):
    me = this_process()
    process = subprocess.Popen(["/bin/sleep", "60"])
    try:
        running = servers.Running(url="http://127.0.0.1:1", process=process_id(process.pid), users=(me,))
        note = tmp_path / "servers" / "mlflow.json"
        note.parent.mkdir()
        note.write_text(running.model_dump_json())
        servers.end_left_behind(tmp_path)
        assert find_process(running.process), "somebody uses it"
        note.write_text(running.model_copy(update={"users": ()}).model_dump_json())
        with note.with_suffix(".lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            servers.end_left_behind(tmp_path)
        assert find_process(running.process), "somebody waits for it to answer"
        servers.end_left_behind(tmp_path)
        assert not find_process(running.process) and not note.exists()
    finally:
        process.kill()
        process.wait()


LISTING = servers.Server(  # the smallest server that there is
    "listing",
    lambda state, port: [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
    "/",
    "",
    lambda state, port: {},
    lambda state: {},
)


def test_a_server_that_dies_while_it_is_used_comes_back_where_it_was_once_for_all_its_users(tmp_path):
    lines: list[str] = []
    with (
        servers.using(LISTING, tmp_path) as url,
        servers.kept_up(LISTING, tmp_path, lines.append),
        servers.kept_up(LISTING, tmp_path, lines.append),
    ):
        before = servers.find(LISTING, tmp_path)
        for each in processes_of(before.process):
            each.kill()
        after = until(lambda: (found := servers.find(LISTING, tmp_path)) and found.process != before.process and found)
        assert after.url == before.url == url and after.users == (this_process(),)
        until(lambda: lines)
    assert lines == ["the listing server had ended and was started again; the run goes on"]
    assert servers.find(LISTING, tmp_path) is None, "its last user has left"


def test_who_comes_after_a_server_died_starts_it_where_others_look_for_it(tmp_path):
    with servers.using(LISTING, tmp_path) as url:
        for each in processes_of(servers.find(LISTING, tmp_path).process):
            each.kill()
        until(lambda: servers.find(LISTING, tmp_path) is None)
        with servers.using(LISTING, tmp_path) as again:
            assert again == url
