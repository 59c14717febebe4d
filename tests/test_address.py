"""Which addresses downloads reach: those of the open Internet, in no spelling any other."""

import asyncio
import ipaddress
import socket
import ssl

import aiohttp
import anyio
import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.web import serving
from xclr import address
from xclr.address import BlockedError, CheckedConnector, LookupFailedError, is_allowed, is_public, open_session, resolve

PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:8.8.8.8",
          "64:ff9b::8.8.8.8", "2002:808:808::1"]  # fmt: skip
PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.8", "192.0.2.1", "198.18.0.1",
    "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "fe80::1",
    "fe80::1%2", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1",
    "::ffff:169.254.169.254", "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "2002:7f00:1::",
    "2002:a9fe:a9fe::", "2001:0:7f00:1::",
]  # fmt: skip
IPV4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
LOOPBACK = ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "017700000001", "::1",
            "::ffff:127.0.0.1", "0", "localhost"]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_public(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_of_networks_and_machines_are_not(address):
    assert not is_public(ipaddress.ip_address(address))


@given(IPV4)
def test_an_ipv4_address_counts_the_same_in_every_wrapping(address):
    number, public = int(address), is_public(address)
    assert is_public(ipaddress.IPv6Address((0xFFFF << 32) | number)) == public
    assert is_public(ipaddress.IPv6Address((0x64FF9B << 96) | number)) == public
    assert is_public(ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1)) == public
    if public:
        assert address.is_global
        assert not (address.is_private or address.is_loopback or address.is_link_local or address.is_multicast)


@given(st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address))
def test_a_public_ipv6_address_has_none_of_the_other_marks(address):
    if is_public(address):
        marks = (address.is_private, address.is_loopback, address.is_link_local, address.is_multicast)
        assert not any((*marks, address.is_site_local, address.is_unspecified))


@given(st.sampled_from(["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
                        "100.64.0.0/10", "224.0.0.0/4", "::1/128", "fc00::/7", "fe80::/10", "ff00::/8"]),
       st.data())  # fmt: skip
def test_no_address_of_these_networks_is_public(network, data):
    inside = ipaddress.ip_network(network)
    address = inside[data.draw(st.integers(0, inside.num_addresses - 1))]
    assert not is_public(address)


@pytest.mark.parametrize(
    ("host", "allow", "allowed"),
    [
        ("pictures.lan", ["pictures.lan"], True),
        ("PICTURES.lan.", ["pictures.lan"], True),
        ("pictures.lan", ["Pictures.LAN"], True),
        ("pictures.lan", ["pictures.lan:8000"], True),
        ("pictures.lan", ["pictures.lan:8001"], False),
        ("other.pictures.lan", ["pictures.lan"], False),
        ("pictures.lan.example.com", ["pictures.lan"], False),
        ("pictures.lan", ["lan"], False),
        ("127.0.0.1", ["127.0.0.1"], True),
        ("2130706433", ["127.0.0.1"], False),
        ("localhost", ["127.0.0.1"], False),
        ("::1", ["::1"], True),
        ("::1", ["[::1]:8000"], True),
        ("::1", ["[::1]"], True),
        ("pictures.lan", [], False),
    ],
)
def test_only_a_host_as_it_is_written_is_allowed(host, allow, allowed):
    named = [each for each in allow if "8" in each]
    assert [is_allowed(host, port, allow) for port in (80, None, 8000)] == (
        [False, False, allowed] if named else [allowed, allowed, False]
    )
    assert is_allowed(host, 8000, [f"{each}:*" for each in allow]) == (allowed and not named)


def connect(host, port, allow=()):
    """Asks for a page; the address that was dialled."""

    async def once():
        url = yarl.URL.build(scheme="http", host=host, port=port, path="/drip")
        connector = CheckedConnector(allow, ssl.create_default_context(), 5.0)
        async with open_session(connector, aiohttp.ClientTimeout(5.0)) as session, session.get(url) as answer:
            return answer.connection.transport.get_extra_info("peername")

    return asyncio.run(once())


@pytest.mark.parametrize("host", LOOPBACK)
def test_this_machine_is_refused_in_every_spelling(host):
    with serving() as server:
        with pytest.raises(BlockedError, match="not a public address"):
            connect(host, server.server_port)
        assert server.asked.total() == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433"])
def test_an_allowed_host_is_reached_by_the_address_found(host):
    with serving() as server:
        assert connect(host, server.server_port, [f"{host}:*"]) == ("127.0.0.1", server.server_port)


def test_an_address_that_was_not_checked_is_not_dialled(monkeypatch):
    """Were aiohttp to find addresses by itself one day, nothing would be reached."""
    monkeypatch.delattr(CheckedConnector, "_resolve_host")
    with serving() as server:
        with pytest.raises(BlockedError, match="was not checked"):
            connect("127.0.0.1", server.server_port, ["127.0.0.1:*"])
        assert server.asked.total() == 0


def test_a_refused_connection_is_an_error_of_the_last_address():
    with serving() as server:
        port = server.server_port
    with pytest.raises(aiohttp.ClientConnectorError):
        connect("localhost", port, [f"localhost:{port}"])


@pytest.mark.parametrize("host", ["nobody.invalid", "a..b", "x" * 64 + ".com", ""])
def test_a_name_without_an_address_is_told_from_a_dead_server(host):
    with pytest.raises(LookupFailedError):
        anyio.run(resolve, host, 80, 20.0, asyncio.Semaphore(1))


@pytest.mark.parametrize(
    ("answer", "known_s"),
    [
        (["9.9.9.9"], address.FRESH_S),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), address.FAILED_S),
        (socket.gaierror(socket.EAI_AGAIN, "no answer"), address.PASSING_S),
    ],
)
def test_what_a_name_server_says_is_believed_for_a_while(answer, known_s, monkeypatch):
    """A name server that says nothing is asked again soon: a moment's silence must not cost a host's pictures."""
    asked, clock = [], [0.0]

    def look_up(host, port, **options):
        asked.append(host)
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in answer]

    monkeypatch.setattr(address.socket, "getaddrinfo", look_up)

    async def found(names):
        try:
            return await names.find("pictures.lan", 80, 5.0)
        except address.LookupFailedError:
            return None

    async def asking():
        names = address.Names(lambda: clock[0])
        together = await asyncio.gather(*(found(names) for _ in range(20)))
        clock[0] = known_s - 0.01
        later = await found(names)
        assert len(asked) == 1, "twenty at once and a later one share an answer"
        clock[0] = known_s
        assert await found(names) == later == together[0]

    asyncio.run(asking())
    assert len(asked) == 2
