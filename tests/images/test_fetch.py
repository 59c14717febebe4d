"""Downloads: every outcome provoked by a real server, and no way to a private address."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.images.pictures import JPEG, PNG
from tests.images.server import serving
from xclr import schema
from xclr.errors import DataError
from xclr.images.address import is_public
from xclr.images.fetch import Fetcher, Limits
from xclr.images.source import FIRST, WINDOW, Reader

QUICK = Limits(connect_s=2, read_s=2, total_s=1, max_bytes=100_000, wait_s=0.01)


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


def get(url, *allowed, limits=QUICK):
    """The outcome of one download."""
    with Fetcher(allowed, limits) as fetcher:
        found = fetcher.submit(url).result(timeout=30)
    assert found.status in schema.STATUSES
    assert (found.data is None) == (found.status != "ok")
    assert (found.error is None) == (found.status == "ok")
    return found


@pytest.mark.parametrize(
    ("path", "status", "http"),
    [
        ("/ok.png", "ok", 200),
        ("/404", "http_4xx", 404),
        ("/403", "http_4xx", 403),
        ("/429", "http_429", 429),
        ("/500", "http_5xx", 500),
        ("/503", "http_5xx", 503),
        ("/304", "redirect", 304),
        ("/hops/5", "redirect", 301),
        ("/hops/4", "ok", 200),
        ("/loop/0", "redirect", 302),
        ("/nowhere", "redirect", 302),
        ("/robots", "robots", 200),
        ("/endless", "too_large", 200),
        ("/slow", "timeout", None),
        ("/truncated", "connection", None),
        ("/rude", "connection", None),
    ],
)
def test_every_outcome_has_its_status(server, path, status, http):
    found = get(server.url + path, "127.0.0.1")
    assert (found.status, found.http) == (status, http)


def test_the_bytes_come_as_they_were_sent_whatever_the_header_calls_them(server):
    assert get(server.url + "/ok.png", "127.0.0.1").data == PNG
    assert get(server.url + "/jpeg", "127.0.0.1").data == JPEG


def test_another_try_where_it_may_help_and_only_there(server):
    found = get(server.url + "/again/1", "127.0.0.1")
    assert (found.status, found.attempt) == ("ok", 2)
    for path, tries in (("/404/once", 1), ("/500/twice", 2)):
        assert get(server.url + path, "127.0.0.1").attempt == tries
        assert server.asked[path] == tries


def test_an_announced_size_beyond_the_limit_is_not_read(server):
    assert get(server.url + "/ok.png", "127.0.0.1", limits=Limits(max_bytes=10)).status == "too_large"


def test_a_name_that_does_not_exist():
    assert get("http://no-such-host.invalid/a.png").status == "dns"


def test_a_port_where_nobody_listens(server):
    with serving() as other:
        place = other.place
    assert get(f"http://{place}/a.png", place).status == "connection"


SPELLINGS = [
    "127.0.0.1", "localhost", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "[::1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0", "0.0.0.0",
]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_of_this_machine_is_reached(server, host):
    before = server.asked["/secret"]
    found = get(f"http://{host}:{server.server_port}/secret")
    assert found.status in {"blocked", "dns"}
    assert server.asked["/secret"] == before


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/a.png", "http://192.168.1.1/a.png", "http://169.254.169.254/latest/meta-data",
        "http://172.16.0.1/a.png", "http://100.64.0.1/a.png", "http://[fe80::1]/a.png", "http://[fd00::1]/a.png",
        "http://[64:ff9b::7f00:1]/a.png", "http://[2002:7f00:1::]/a.png", "ftp://example.org/a.png",
        "file:///etc/passwd", "data:image/png;base64,AAAA", "http://", "http:///a.png", "//example.org/a.png",
        "nonsense",
    ],
)  # fmt: skip
def test_what_is_not_public_http_is_blocked(url):
    assert get(url).status == "blocked"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_redirect_to_a_private_address_is_blocked(server, host):
    """The first hop is allowed by name and port, the second by neither."""
    with serving() as inner:
        target = f"http://{host}:{inner.server_port}/secret"
        found = get(f"{server.url}/to?{target}", server.place)
        assert found.status == "blocked"
        assert inner.asked["/secret"] == 0


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example.org/"])
def test_a_redirect_to_another_scheme_is_blocked(server, target):
    assert get(f"{server.url}/to?{target}", "127.0.0.1").status == "blocked"


def test_neither_credentials_nor_cookies_nor_proxies(server, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    del server.headers_seen[:]
    with Fetcher(["127.0.0.1"], QUICK) as fetcher:
        for path in ("/ok.png", "/other.png"):
            url = f"http://user:secret@{server.place}{path}"
            assert fetcher.submit(url).result(timeout=30).status == "ok"
    assert len(server.headers_seen) == 2
    for headers in server.headers_seen:
        assert not {"authorization", "cookie"} & {name.lower() for name in headers}
        assert headers["User-Agent"].startswith("xclr/")


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate, which nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now.replace(year=now.year + 1)
    )
    path = tmp_path / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + private)
    return path


def test_a_certificate_that_nobody_trusts(certificate):
    with serving() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        assert get(f"https://{server.place}/ok.png", "127.0.0.1").status == "tls"


def test_no_host_gets_more_at_once_than_its_share(server):
    limits = Limits(in_flight=16, per_host=3, total_s=20)
    running, most, lock = 0, 0, threading.Lock()
    real = server.RequestHandlerClass.do_GET

    class Counting(server.RequestHandlerClass):
        def do_GET(self):  # noqa: N802
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            server.closing.wait(0.02)
            with lock:
                running -= 1
            real(self)

    with serving() as own:
        own.RequestHandlerClass = Counting
        with Fetcher(["127.0.0.1"], limits) as fetcher:
            found = [fetcher.submit(f"{own.url}/{number}.png") for number in range(30)]
            assert {each.result(timeout=30).status for each in found} == {"ok"}
    assert 1 < most <= 3


@given(st.ip_addresses(v=4))
def test_addresses_that_hold_a_private_ipv4_are_private(ip):
    inner = int(ip)
    holding = [ipaddress.IPv6Address(0xFFFF00000000 | inner), ipaddress.IPv6Address((0x64FF9B << 96) | inner)]
    for each in holding:
        assert is_public(str(each)) == is_public(str(ip)), each
    if not is_public(str(ip)):
        assert not is_public(str(ipaddress.IPv6Address((0x2002 << 112) | (inner << 80))))


@given(st.ip_addresses())
def test_whatever_is_public_is_global_and_nothing_else(ip):
    if is_public(str(ip)) and ip not in ipaddress.ip_network("64:ff9b::/96"):
        assert ip.is_global
        assert not (ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified)


def test_outcomes_keep_the_order_of_the_pictures(server, tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    pictures = [f"{server.url}/404", b"bytes", None, tmp_path / "a.png", f"{server.url}/ok.png", tmp_path / "gone.png"]
    many = pictures * (WINDOW // 4)
    with Reader(["127.0.0.1"], QUICK) as reader:
        found = list(reader.read(many))
    expected = [("http_4xx", None), ("ok", b"bytes"), ("ok", None), ("ok", PNG), ("ok", PNG), ("decode", None)]
    assert [(each.status, each.data) for each in found] == expected * (WINDOW // 4)
    assert "FileNotFoundError" in found[5].error


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(200_000))
    with Reader((), QUICK) as reader:
        assert [each.status for each in reader.read([tmp_path / "large.png"])] == ["too_large"]


def test_a_network_that_is_down_ends_the_stage():
    urls = [f"http://host{number}.invalid/a.png" for number in range(FIRST + 30)]
    with Reader((), Limits(wait_s=0.01)) as reader:
        outcomes = reader.read(urls)
        with pytest.raises(DataError, match="network seems to be down"):
            list(outcomes)


def test_scattered_failures_do_not(server):
    urls = [f"{server.url}/ok.png", *["http://host.invalid/a.png"] * 60, f"{server.url}/ok.png"] * 2
    with Reader(["127.0.0.1"], Limits(wait_s=0.01)) as reader:
        assert [each.status for each in reader.read(urls)].count("dns") == 120
