"""Nobody but the user gets into the servers: no page of another origin, no forged host, no other local user."""

from __future__ import annotations

import os
import stat
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser

from infra.access import auth_file
from tests.kit.prefect import ask
from tests.kit.servers import known_to_mlflow, status_of
from tests.kit.users import as_nobody

pytestmark = pytest.mark.slow
ATTACK = """async ([api, headers]) => {
  const said = [], post = async (path, body) => {
    for (const mode of ["cors", "no-cors"]) {
      try {
        const answer = await fetch(api + path, {method: "POST", mode, headers: mode === "cors" ? headers : {},
                                                body: JSON.stringify(body), credentials: "include"});
        said.push(mode + " " + answer.type + " " + answer.status);
      } catch (error) { said.push(mode + " refused"); }
    }
  };
  await post("/flows/", {name: "kittens"});
  await post("/work_pools/", {name: "kittens", type: "process"});
  await post("/flow_runs/filter", {});
  try { said.push("version " + (await fetch(api + "/admin/version")).status) } catch (error) { said.push("refused") }
  return said;
}"""


class Page(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        """It, whatever is asked for."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>kittens</title>")

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A page of another origin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://evil.localhost:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("knows", [False, True], ids=["alone", "with a password of its own"])
def test_a_page_of_another_origin_gets_nothing_in(browser: Browser, served, elsewhere, knows):
    """With the headers that would make it a Prefect client, and without any, as a form sends it."""
    page = browser.new_page()
    page.goto(elsewhere)
    headers = {"Content-Type": "application/json"} | ({"Authorization": "Basic YTpi"} if knows else {})
    said = page.evaluate(ATTACK, [f"{served.prefect}/api", headers])
    page.close()
    assert said == ["cors refused", "no-cors opaque 0"] * 3 + ["refused"]
    assert not [each for each in ask(served, "/flows/filter", {}) if each["name"] == "kittens"]
    assert not [each for each in ask(served, "/work_pools/filter", {}) if each["name"] == "kittens"]


MLFLOW_ATTACK = """async ([address, headers]) => {
  const said = [], api = address + "/api/2.0/mlflow/", ajax = address + "/ajax-api/2.0/mlflow/";
  for (const path of [api + "experiments/create", ajax + "experiments/create"]) {
    for (const mode of ["cors", "no-cors"]) {
      try {
        const answer = await fetch(path, {method: "POST", mode, headers: mode === "cors" ? headers : {},
                                          body: JSON.stringify({name: "kittens"}), credentials: "include"});
        said.push(mode + " " + answer.type + " " + answer.status);
      } catch (error) { said.push(mode + " refused"); }
    }
  }
  try { said.push("read " + (await fetch(ajax + "experiments/get?experiment_id=0")).status) }
  catch (error) { said.push("read refused") }
  return said;
}"""


@pytest.mark.parametrize("knows", [False, True], ids=["alone", "in a browser that is logged in"])
def test_a_page_of_another_origin_gets_nothing_into_mlflow(browser: Browser, served, elsewhere, knows):
    user, _, password = served.auth.partition(":")
    logged_in = {"http_credentials": {"username": user, "password": password}} if knows else {}
    page = browser.new_page(**logged_in)
    page.set_default_timeout(120_000)  # for a fault, however slow the machine is
    if knows:
        assert page.goto(served.mlflow).status == 200
    page.goto(elsewhere)
    said = page.evaluate(MLFLOW_ATTACK, [served.mlflow, {"Content-Type": "application/json"}])
    page.close()
    assert said == ["cors refused", "no-cors opaque 0"] * 2 + ["read refused"]
    with known_to_mlflow(served) as client:
        assert client.get_experiment_by_name("kittens") is None


def test_mlflow_answers_its_owner_alone_and_no_forged_host(served):
    known = {"Authorization": f"Basic {b64encode(served.auth.encode()).decode()}"}
    place, path = urlsplit(served.mlflow).netloc, "/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert status_of(served.mlflow, "GET", path, Host=place, **known) == 200
    for host in ("evil.example", "127.0.0.1.evil.example", f"evil.example:{urlsplit(served.mlflow).port}", ""):
        assert status_of(served.mlflow, "GET", path, Host=host, **known) in {400, 403}
    for mine in ("/", "/version", path, "/ajax-api/2.0/mlflow/experiments/get?experiment_id=0", "/get-artifact?path=x"):
        assert as_nobody(lambda mine=mine: str(status_of(served.mlflow, "GET", mine))) == "401"
    signup = "/api/2.0/mlflow/users/create"
    assert (
        as_nobody(lambda: str(status_of(served.mlflow, "POST", signup, **{"Content-Type": "application/json"})))
        == "401"
    )


def test_a_forged_host_is_refused_even_with_the_password(served):
    known = {"Authorization": f"Basic {b64encode(served.auth.encode()).decode()}"}
    place = urlsplit(served.prefect).netloc
    assert status_of(served.prefect, "GET", "/api/admin/version", Host=place, **known) == 200
    for host in ("evil.example", "127.0.0.1.evil.example", f"evil.example:{urlsplit(served.prefect).port}", ""):
        assert status_of(served.prefect, "GET", "/api/admin/version", Host=host, **known) == 400
        assert status_of(served.prefect, "GET", "/", Host=host) == 400, "no page either"
    assert status_of(served.prefect, "POST", "/api/flows/", Host=place, **known) == 403, "no token against forgery"


def test_another_user_of_the_machine_gets_nothing(served):
    path = auth_file(served.home / "state")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert as_nobody(lambda: str(status_of(served.prefect, "GET", "/api/admin/version"))) == "401"
    assert as_nobody(lambda: str(status_of(served.prefect, "POST", "/api/flow_runs/filter"))) in {"401", "403"}
    if os.geteuid() == 0:
        assert as_nobody(lambda: str(os.access(path, os.R_OK))) == "False"


def test_the_password_is_in_no_file_but_its_own(served):
    for path in served.home.rglob("*"):
        if path.is_file() and path != auth_file(served.home / "state"):
            assert served.auth.partition(":")[2].encode() not in path.read_bytes(), path
