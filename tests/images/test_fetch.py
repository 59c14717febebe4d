"""Downloads from a real server that does everything that servers do."""

import os
import resource
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from unittest.mock import Mock
from urllib.parse import quote

import aiohttp
import pytest

from tests.kit.pictures import PNG
from tests.kit.web import LIMIT, QUICK, certificate, server_context, serving
from xclr import __version__
from xclr.errors import JobError
from xclr.images import fetch as fetch_module
from xclr.images.fetch import Limits, downloading, forbids
from xclr.images.generations import STATUSES

LOCAL = ("127.0.0.1:*",)
OUTCOMES = {  # path: status, HTTP, a part of the error, tries
    "/ok": ("ok", 200, None, 1),
    "/packed/gzip": ("ok", 200, None, 1),
    "/html": ("ok", 200, None, 1),  # whether it is a picture is told later
    "/exactly": ("ok", 200, None, 1),
    "/hops/5": ("ok", 200, None, 1),
    "/status/204": ("ok", 204, None, 1),
    "/status/403": ("http_4xx", 403, "HTTP 403", 1),
    "/status/404": ("http_4xx", 404, "HTTP 404", 1),
    "/status/410": ("http_4xx", 410, "HTTP 410", 1),
    "/status/429": ("http_429", 429, "HTTP 429", 2),
    "/status/500": ("http_5xx", 500, "HTTP 500", 2),
    "/status/304": ("redirect", 304, "HTTP 304", 1),
    "/hops/6": ("redirect", None, "more than 5 redirects", 1),
    "/loop": ("redirect", None, "more than 5 redirects", 1),
    "/nowhere": ("redirect", 302, "without Location", 1),
    "/to?url=http%3A//h%3Aport/": ("redirect", 302, "bad Location", 1),
    "/to?url=file%3A///etc/passwd": ("blocked", None, "file", 1),
    "/to?url=http%3A//169.254.169.254/latest/meta-data": ("blocked", None, "169.254.169.254", 1),
    "/to?url=http%3A//nobody.invalid/": ("dns", None, "nobody.invalid", 1),
    "/busy/429/0": ("ok", 200, None, 2),
    "/busy/503/0": ("ok", 200, None, 2),
    "/robots/noai": ("robots", 200, "noai", 1),
    "/robots/noindex,%20NoImageAI": ("robots", 200, "NoImageAI", 1),
    "/robots/noai,%20%C3%BF": ("robots", 200, "noai, \\udcff", 1),
    "/robots/noindex": ("ok", 200, None, 1),
    "/endless": ("too_large", None, "larger than 100,000 bytes", 1),
    "/announced": ("too_large", None, "larger than 100,000 bytes", 1),
    "/bomb": ("too_large", None, "larger than 100,000 bytes", 1),
    "/short": ("connection", None, "ClientPayloadError", 2),
    "/reset": ("connection", None, "ServerDisconnectedError", 2),
    "/badgzip": ("decode", None, "incorrect header", 1),
    "/packed/X-GZip": ("ok", 200, None, 1),
    "/packed/deflate": ("ok", 200, None, 1),
    "/packed/identity": ("ok", 200, None, 1),
    "/packed/gzip,%20gzip": ("decode", None, "gzip, gzip", 1),
    "/packed/br": ("decode", None, "Content-Encoding br", 1),
}


@pytest.fixture
def server():
    with serving() as running:
        yield running


def fetch(*urls, context=None, **limits):
    """The outcomes of URLs, in their order."""
    with downloading(Limits(**QUICK | limits), context) as start:
        return [each.result() for each in [start(url) for url in urls]]


def test_every_answer_has_the_outcome_it_deserves(server):
    outcomes = fetch(*map(server.url, OUTCOMES))
    for (path, (status, code, error, attempt)), found in zip(OUTCOMES.items(), outcomes, strict=True):
        assert (found.status, found.http, found.attempt) == (status, code, attempt), path
        assert found.error is None if error is None else error in found.error, path
        assert found.status in STATUSES
        assert found.host == "127.0.0.1"
        assert found.reached or found.status == "dns"
    packed = [each for path, each in zip(OUTCOMES, outcomes, strict=True) if path.startswith("/packed")]
    assert {each.data for each in packed if each.status == "ok"} == {PNG}
    assert outcomes[0].data == PNG
    assert len(outcomes[3].data) == LIMIT
    assert not any(each.data for each in outcomes if each.status != "ok")


@pytest.mark.parametrize(("path", "limit"), [("/silent", "read_s"), ("/drip", "total_s"), ("/silent", "total_s")])
@pytest.mark.slow
def test_a_slow_server_is_given_up(server, path, limit):
    (found,) = fetch(server.url(path), **{limit: 1.5})
    assert (found.status, found.attempt, found.reached) == ("timeout", 2, True)
    assert server.asked.total() == 2


def test_a_name_that_is_none_and_a_dead_server_reach_nobody():
    with serving() as server:
        dead = server.url("/ok")
    unknown, refused = fetch("http://nobody.invalid/a.png", dead)
    assert (unknown.status, unknown.attempt) == ("dns", 1)
    assert (refused.status, refused.attempt, refused.reached) == ("connection", 2, False)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "[::1]",
             "[::ffff:127.0.0.1]", "127.1", "user:secret@127.0.0.1", "8.8.8.8@127.0.0.1"],
)  # fmt: skip
def test_this_machine_is_not_asked_unless_allowed(server, host):
    (found,) = fetch(server.url("/ok", host), allow_hosts=("pictures.lan:*",))
    assert found.status == "blocked"
    assert server.asked.total() == 0


def test_a_redirect_to_a_private_address_is_not_followed(server):
    with serving() as other:
        (found,) = fetch(
            server.url("/to?url=" + quote(other.url("/ok"))), allow_hosts=(f"127.0.0.1:{server.server_port}",)
        )
        assert found.status == "blocked"
        assert other.asked.total() == 0
    assert server.asked.total() == 1


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/a.png", "file:///etc/passwd", "http://", "http:///a.png", "http://127.0.0.1:0/",
            "http://127.0.0.1:99999/", "http://[::1", "http://a\x00b/", "data:image/png;base64,AAAA", "",
            "http://127.0.0.1/\ud800"],
)  # fmt: skip
def test_what_is_no_web_address_is_blocked(url):
    (found,) = fetch(url)
    assert (found.status, found.attempt) == ("blocked", 1)
    assert found.error


def test_a_request_carries_an_honest_name_and_no_secrets(server, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    first = server.url("/ok").replace("http://", "http://user:secret@")
    hop = server.url("/to?url=" + quote(server.url("/ok?second").replace("http://", "http://me:secret@")))
    with downloading(Limits(**QUICK)) as start:
        outcomes = [start(url).result() for url in (first, first, hop)]  # one after the other, so that cookies could be
    assert [each.status for each in outcomes] == ["ok"] * 3
    assert len(server.headers) == 4
    for headers in server.headers:
        assert headers["User-Agent"] == f"xclr/{__version__}"
        assert headers["Host"] == f"127.0.0.1:{server.server_port}"
        assert not {"Authorization", "Cookie", "Referer"} & set(headers)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_the_environments_proxies_are_ignored(server, monkeypatch, name):
    with serving() as proxy:
        monkeypatch.setenv(name, proxy.url(""))
        assert fetch(server.url("/ok"))[0].status == "ok"
        assert proxy.asked.total() == 0


def test_a_proxy_that_refuses_costs_its_row(server):
    """It answers CONNECT with 501, as others do with 403 for a private address and with 502 for a dead host."""
    (found,) = fetch("https://internal.example/x.jpg", proxy=server.url(""), allow_hosts=())
    assert (found.status, found.attempt, found.reached) == ("connection", 2, True)
    assert "ProxyError: 501" in found.error


@pytest.mark.parametrize("kind", [RecursionError, KeyError, RuntimeError, AttributeError, aiohttp.ClientError])
def test_whatever_an_answer_makes_a_library_raise_costs_its_row(server, monkeypatch, kind):
    monkeypatch.setattr(fetch_module, "_refused", Mock(side_effect=kind("odd")))
    (found,) = fetch(server.url("/ok"))
    assert (found.status, found.attempt) == ("connection", 2)
    assert kind.__name__ in found.error


def test_a_machine_without_descriptors_stops_and_marks_no_row(server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with downloading(Limits(**QUICK)) as start:
        assert start(server.url("/ok")).result().status == "ok"
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(JobError, match="this machine has no more") as raised:
                start(server.url("/ok", host="localhost")).result()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "ulimit -n" in raised.value.remedy


def test_names_are_sent_as_they_are_written_in_the_address(server):
    fetch(server.url("/ok?" + "bücher & so"))
    assert list(server.asked) == ["/ok?b%C3%BCcher%20&%20so"]


@pytest.mark.parametrize("days", [-1, 1])
def test_a_server_may_say_by_date_when_to_come_again(server, days):
    when = quote(format_datetime(datetime.now(UTC) + timedelta(days=days), usegmt=True))
    (found,) = fetch(server.url(f"/busy/503/{when}"))
    assert (found.status, found.attempt) == (("ok", 2) if days < 0 else ("http_5xx", 1))


@pytest.mark.parametrize("when", ["soon", "-1", "Mon, 1 Jan 99999999999999999999 00:00:00 GMT", "9" * 5000])
def test_a_date_that_is_none_is_an_outcome_like_any_other(server, when):
    (found,) = fetch(server.url(f"/busy/503/{quote(when)}"))
    assert (found.status, found.attempt) == (("http_5xx", 1) if when.startswith("9") else ("ok", 2))


def test_a_server_that_wants_to_be_left_alone_is(server):
    """All of it, as long as it asks; pictures of others go on."""
    with serving() as other:
        found = fetch(*(server.url(f"/busy/429/3600/{row}") for row in range(40)), other.url("/ok"), per_host=4)
    assert [each.status for each in found] == ["http_429"] * 40 + ["ok"]
    assert server.asked.total() == 4, "those that were on their way"
    assert "wants to be left alone for 3," in found[-2].error


@pytest.mark.parametrize(("code", "reached"), [(socket.EAI_NONAME, True), (socket.EAI_AGAIN, False)])
def test_a_name_server_that_knows_no_such_name_is_a_network(code, reached, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=socket.gaierror(code, "no")))
    first, second = fetch("http://nobody.example/a", "http://nobody.example/b")
    assert [(each.status, each.reached) for each in (first, second)] == [("dns", reached)] * 2


def test_a_body_of_crumbs_is_given_up(server):
    (found,) = fetch(server.url("/crumbs"))
    assert (found.status, "chunks" in found.error) == ("connection", True)


@pytest.mark.parametrize(
    "host", ["%31%32%37.0.0.1", "127%2e0%2e0%2e1", "loc%61lhost", "127.0.0.1%00", "ip6-localhost", "", "a b",
             "localhost.localdomain"],
)  # fmt: skip
def test_a_proxy_is_not_asked_for_what_it_may_read_in_its_own_way(host, server):
    (found,) = fetch(f"http://{host}/x.jpg", proxy=server.url(""), allow_hosts=())
    assert found.status == "blocked"
    assert server.asked.total() == 0


def test_robots_may_be_disregarded(server):
    assert fetch(server.url("/robots/noai"), robots=False)[0].status == "ok"


@pytest.mark.parametrize(
    ("tag", "expected"),
    [("noai", True), ("noindex, noai", True), ("NOIMAGEAI", True), ("xclr: noai", True), ("*: noai", True),
     ("otherbot: noai", False), ("otherbot: noindex, noai", False), ("otherbot: noindex, xclr: noai", True),
     ("max-image-preview:large, noai", True), ("unavailable_after: 25 Jun 2030 15:00:00 PST, noai", True),
     ("otherbot: max-snippet: 5, noai", False),
     ("unavailable_after: 25 Jun 2030 15:00:00 PST", False), ("noarchive", False), ("", False)],
)  # fmt: skip
def test_a_robots_tag_counts_when_it_speaks_to_us(tag, expected):
    assert forbids(tag) == expected


def test_a_certificate_of_nobody_is_refused(tmp_path):
    with serving(server_context(certificate(tmp_path))) as server:
        (found,) = fetch(server.url("/ok"))
        assert (found.status, found.attempt, found.reached) == ("tls", 1, True)
        assert "self-signed certificate" in found.error
        assert server.asked.total() == 0


def test_a_server_that_speaks_no_tls_is_a_failure_of_tls(server):
    (found,) = fetch(server.url("/ok").replace("http://", "https://"))
    assert found.status == "tls"


def test_certificates_are_checked_for_the_name_though_its_address_is_dialled(tmp_path):
    pem = certificate(tmp_path)
    context = ssl.create_default_context(cafile=pem)
    with serving(server_context(pem)) as server:
        (found,) = fetch(server.url("/ok", "localhost"), context=context, allow_hosts=("localhost:*",))
        assert (found.status, found.data) == ("ok", PNG)
        assert server.names == ["localhost"]
        assert server.headers[0]["Host"] == f"localhost:{server.server_port}"


def test_a_host_is_asked_for_a_few_pictures_at_once(server):
    server.barrier = threading.Barrier(3)  # answers go out by threes
    outcomes = fetch(*(server.url(f"/together/{row}") for row in range(12)), per_host=3)
    assert [each.status for each in outcomes] == ["ok"] * 12
    assert server.most == 3


def test_all_hosts_together_have_a_bound(server):
    server.barrier = threading.Barrier(4)
    hosts = ("127.0.0.1", "localhost")
    urls = [server.url(f"/together/{row}", host) for row in range(8) for host in hosts]
    outcomes = fetch(*urls, in_flight=4, per_host=4, allow_hosts=[f"{host}:*" for host in hosts])
    assert [each.status for each in outcomes] == ["ok"] * 16
    assert server.most == 4


def test_who_waits_for_a_busy_host_keeps_no_other_waiting(server):
    with (
        serving() as other,
        downloading(Limits(**QUICK | {"in_flight": 4, "per_host": 2, "allow_hosts": (*LOCAL, "localhost:*")})) as start,
    ):
        held = [start(server.url(f"/hold/{row}")) for row in range(10)]
        assert start(other.url("/ok", "localhost")).result().status == "ok"
        assert not any(each.done() for each in held)
        server.released.set()
        assert [each.result().status for each in held] == ["ok"] * 10


def test_leaving_ends_what_is_under_way(server):
    with pytest.raises(KeyboardInterrupt), downloading(Limits(**QUICK)) as start:
        waiting = start(server.url("/silent"))
        with server.changed:
            assert server.changed.wait_for(lambda: server.asked.total() == 1, 30)
        raise KeyboardInterrupt
    assert waiting.cancelled() or waiting.done()
