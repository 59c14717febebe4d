"""A table is fetched once, gone on with after an interruption, and only from where a person said."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.kit.disks import small_disk
from xclr.captions import download
from xclr.captions.source import fetched, placed
from xclr.errors import DataError, RecipeError, StoreError
from xclr.recipe import DataConfig, Recipe, host_of, load_recipe

BODY = b"".join(b"http://host/%d.jpg\tcaption %d\n" % (row, row) for row in range(5000))


class Handler(BaseHTTPRequestHandler):
    """Serves BODY; what the server object says happens first."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.path, self.headers.get("Range"), self.headers.get("Host")))
        if self.path.startswith("/status/"):
            return self.answer(int(self.path.split("/")[2]), b"")
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            return self.end_headers()
        begin, asked = 0, self.headers.get("Range") is not None
        if server.range and (asked or server.range == "unasked"):
            return self.answer_range(server.range)
        if self.headers.get("Range") and self.headers.get("If-Range") == server.tag:
            begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        body, cut = BODY[begin:], server.cuts.pop(0) if server.cuts else None
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(BODY) - 1}/{len(BODY)}")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", server.tag)
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        self.close_connection = cut is not None
        return None

    def answer_range(self, kind: str) -> None:
        """Another part than was asked for, or none."""
        if kind == "whole":
            return self.answer(416, b"")
        begin = {"from the start": 0, "beyond": 5000, "short": 1000, "without a word": 1000, "unasked": 0}[kind]
        body = BODY[begin:] if kind in {"from the start", "beyond"} else BODY[begin : begin + 10]
        self.send_response(206)
        if kind != "without a word":
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(body) - 1}/{len(BODY)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    monkeypatch.setattr(download, "PAUSE_S", 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.cuts, server.tag, server.range = [], [], '"one"', None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def data(server, path="/cc12m.tsv", **changes) -> DataConfig:
    return DataConfig(source="cc12m", url=f"http://127.0.0.1:{server.server_port}{path}", **changes)


def test_a_table_is_fetched_once_and_described(server, tmp_path):
    seen = []
    path = download.fetch(data(server), tmp_path, lambda *numbers: seen.append(numbers))
    assert path.read_bytes() == BODY and path == fetched(data(server).url, tmp_path)
    assert download.fetch(data(server), tmp_path) == path
    assert len(server.asked) == 1 and seen[-1] == (len(BODY), len(BODY))
    note = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert (note["bytes"], note["sha256"]) == (len(BODY), hashlib.sha256(BODY).hexdigest())
    recipe = Recipe(name="x", data=data(server))
    assert placed(recipe, tmp_path).data.path == path
    assert placed(recipe, tmp_path / "other").data.path is None


def test_an_interrupted_body_is_gone_on_with(server, tmp_path):
    server.cuts = [1000, 2000]
    assert download.fetch(data(server), tmp_path).read_bytes() == BODY
    assert [ranges for _, ranges, _ in server.asked] == [None, "bytes=1000-", "bytes=3000-"]


def test_a_table_that_changed_meanwhile_is_fetched_from_its_start(server, tmp_path):
    server.cuts = [1000] + [0] * 4
    with pytest.raises(DataError, match="ClientPayloadError"):
        download.fetch(data(server), tmp_path)
    server.tag = '"two"'
    assert download.fetch(data(server), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("kind", ["from the start", "beyond", "short", "without a word", "whole"])
def test_a_part_that_was_not_asked_for_is_never_put_to_the_others(kind, server, tmp_path):
    """Not even where what is here is whole already, killed before it got its name."""
    given, here = data(server), BODY if kind == "whole" else BODY[:1000]
    path = fetched(given.url, tmp_path)
    path.parent.mkdir(parents=True)
    path.with_name(f"{path.name}.part").write_bytes(here)
    path.with_name(f"{path.name}.validator").write_text(server.tag)
    server.range = kind
    assert download.fetch(given, tmp_path).read_bytes() == BODY


def test_a_part_that_nobody_asked_for_is_no_table(server, tmp_path):
    server.range = "unasked"
    with pytest.raises(DataError, match="a part that was not asked for: bytes 0-9/"):
        download.fetch(data(server), tmp_path)


@pytest.mark.parametrize(
    ("limit", "value", "said"), [("MOST_BYTES", 1000, "more than 1,000"), ("SLOWEST", 1e12, "came in")]
)
def test_an_endless_and_a_slow_table_are_given_up(limit, value, said, server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, limit, value)
    monkeypatch.setattr(download, "PATIENCE_S", 0.0)
    with pytest.raises(DataError, match=said):
        download.fetch(data(server), tmp_path)


def test_a_disk_that_takes_no_more_is_told_at_once(server, tmp_path):
    with small_disk(tmp_path / "full", 1 << 16) as home, pytest.raises(StoreError, match=f"no space left on {home} "):
        download.fetch(data(server), home)
    assert len(server.asked) == 1, "another try would fare no better"


@pytest.mark.parametrize("code", [403, 404, 503])
def test_a_refusal_is_told(server, tmp_path, code):
    with pytest.raises(DataError, match=str(code)) as caught:
        download.fetch(data(server, f"/status/{code}"), tmp_path)
    assert "data.path" in caught.value.remedy
    assert len(server.asked) == (5 if code == 503 else 1)


def test_a_redirect_does_not_lead_to_a_private_address(server, tmp_path):
    with pytest.raises(DataError, match="BlockedError"):
        download.fetch(data(server, f"/to/http://localhost:{server.server_port}/cc12m.tsv"), tmp_path)
    allowed = data(
        server, f"/to/http://localhost:{server.server_port}/cc12m.tsv", allow_hosts=(f"localhost:{server.server_port}",)
    )
    assert download.fetch(allowed, tmp_path).read_bytes() == BODY


def test_name_and_password_in_an_address_are_refused():
    with pytest.raises(RecipeError, match="name and password") as caught:
        load_recipe("cc12m", ["data.url=http://me:hush@127.0.0.1:1/x.tsv"])
    assert "hush" not in str(caught.value)
    with pytest.raises(RecipeError, match="token or signature") as caught:
        load_recipe("cc12m", ["data.url=https://h/x.tsv?a=1&X-Amz-Signature=hush"])
    assert "hush" not in str(caught.value)
    assert host_of("http://host:81/x") == "host:81" and host_of("ftp://host/x") == ""


def test_only_published_tables_are_fetched():
    with pytest.raises(RecipeError, match="url"):
        load_recipe("emoji", ["data.url=http://host/x"])
    with pytest.raises(RecipeError, match="url"):
        load_recipe("cc12m", ["data.url=file:///etc/passwd"])
