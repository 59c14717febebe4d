"""Which addresses a download may reach: a name is resolved once, all answers are checked, one of these is dialled."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple
from weakref import WeakValueDictionary

import aiohttp
import anyio
import anyio.to_thread
import httpx
import yarl
from aiohttp.abc import ResolveResult

from xclr import __version__

AGENT = "xclr"
HEADERS = {"User-Agent": f"{AGENT}/{__version__}", "Accept-Encoding": "identity"}
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
THIS_MACHINE = frozenset({"localhost", "localhost.localdomain", "localhost6", "ip6-localhost", "ip6-loopback"})
NAME = re.compile(r"[A-Za-z0-9_.:-]+")  # as names and addresses are asked for; others a proxy may read in its own way
WEB_PORTS = frozenset({None, 80, 443})
MOST_DIALLED = 3  # addresses of one name
MOST_LOOK_UPS = 16  # at once: name servers drop queries of a burst, and each then costs 5 s
MOST_NAMES = 10_000  # remembered
FRESH_S, FAILED_S, PASSING_S = 300.0, 30.0, 1.0  # how long addresses, that there are none, and no answer are known
NAT64 = ipaddress.ip_network("64:ff9b::/96")
NOT_PUBLIC = tuple(  # ranges that `is_global` of some Python versions lets through
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/32", "3fff::/20", "5f00::/16", "fec0::/10"),
    )
)  # 168.63.129.16 is the metadata service of Azure's machines


class BlockedError(Exception):
    """The address or scheme is one that downloads must not reach."""


class LookupFailedError(Exception):
    """The name has no address; `passing` when the name servers did not say so, but did not answer."""

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


def is_public(address: Address) -> bool:
    """True for an address of the open Internet, and for an IPv6 address that wraps one of those in IPv4."""
    wrapped = _wrapped(address)
    if wrapped is not None:
        return is_public(wrapped)
    odd = address.is_multicast or address.is_unspecified or address.is_reserved
    return address.is_global and not odd and not any(address in each for each in NOT_PUBLIC)


def is_allowed(host: str, port: int | None, allow: Collection[str]) -> bool:
    """True when the host stands in `allow` as it is written: with its port, with * for any, or alone for the web's."""
    name = host.lower().rstrip(".")
    ends = {f":{port}", ":*"} | ({""} if port in WEB_PORTS else set())
    spelled = {f"{each}{end}" for each in (name, f"[{name}]") for end in ends}
    return any(each.lower().rstrip(".") in spelled for each in allow)


async def resolve(host: str, port: int, timeout_s: float | None, turns: asyncio.Semaphore) -> list[str]:
    """The addresses of a name, or of an address in any spelling, `turns` at a time; raises LookupFailedError."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        async with turns:
            with anyio.fail_after(timeout_s):
                found = await anyio.to_thread.run_sync(look_up, abandon_on_cancel=True)
    except TimeoutError as error:
        raise LookupFailedError(f"no answer about {host} within {timeout_s:g} s", passing=True) from error
    except socket.gaierror as error:
        raise LookupFailedError(f"{host}: {error}", passing=error.errno == socket.EAI_AGAIN) from error
    except (UnicodeError, OverflowError) as error:
        raise LookupFailedError(f"{host}: {error}") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def check(host: str, addresses: Iterable[str]) -> None:
    """Raise BlockedError unless all of a name's addresses are public."""
    for each in addresses:
        if not is_public(ipaddress.ip_address(each)):
            where = host if host == each else f"{host} is {each}, which"
            raise BlockedError(f"{where} is not a public address; data.allow_hosts can allow it, as HOST or HOST:PORT")


def spelled_out(host: str) -> list[str]:
    """The address that a host is in itself, in whatever spelling; none for a name, but for that of this machine."""
    if host.lower() in THIS_MACHINE or host.lower().endswith(".localhost"):
        return ["127.0.0.1"]
    with suppress(ValueError):
        return [str(ipaddress.ip_address(host.strip("[]")))]
    with suppress(OSError):
        return [socket.inet_ntoa(socket.inet_aton(host))]  # decimal, octal and hex too
    return []


class Known(NamedTuple):
    """What a name resolves to, or why it does not, and until when that is believed."""

    until: float
    addresses: list[str]
    failure: str = ""
    passing: bool = False  # the name servers did not answer


class Names:
    """What names resolve to, each asked once while that is fresh, however many connections to it are opened."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.known: OrderedDict[tuple[str, int], Known] = OrderedDict()
        self._look_ups = asyncio.Semaphore(MOST_LOOK_UPS)
        self._asking: WeakValueDictionary[tuple[str, int], asyncio.Lock] = WeakValueDictionary()

    async def find(self, host: str, port: int, timeout_s: float | None) -> list[str]:
        """The addresses of a name; raises LookupFailedError."""
        lock = self._asking.setdefault((host, port), asyncio.Lock())
        async with lock:
            known = self.known.get((host, port))
            if known is None or self.clock() >= known.until:
                known = self.known[host, port] = await self._ask(host, port, timeout_s)
        if len(self.known) > MOST_NAMES:
            self.known.popitem(last=False)
        if known.failure:
            raise LookupFailedError(known.failure, passing=known.passing)
        return known.addresses

    async def _ask(self, host: str, port: int, timeout_s: float | None) -> Known:
        try:
            addresses = await resolve(host, port, timeout_s, self._look_ups)
        except LookupFailedError as error:
            until = self.clock() + (PASSING_S if error.passing else FAILED_S)
            return Known(until, [], str(error), error.passing)
        return Known(self.clock() + FRESH_S, addresses)


class Checked(str):
    """An address that may be dialled."""

    __slots__ = ()


class CheckedConnector(aiohttp.TCPConnector):
    """Opens connections to checked addresses only; what it checked is what it dials, so no second answer can differ.

    What asks through it meets BlockedError, LookupFailedError and aiohttp's errors.
    """

    def __init__(self, allow: Collection[str], context: ssl.SSLContext, timeout_s: float | None) -> None:
        context.set_alpn_protocols(["http/1.1"])
        super().__init__(ssl=context, limit=0, socket_factory=_open_socket)
        self.allow, self.timeout_s, self.names = allow, timeout_s, Names()

    async def _resolve_host(self, host: str, port: int, traces: object = None) -> list[ResolveResult]:
        """The addresses of a host in any spelling, numbers too, which aiohttp would not hand to a resolver."""
        addresses = await self.names.find(host, port, self.timeout_s)
        if not is_allowed(host, port, self.allow):
            check(host, addresses)
        return [
            ResolveResult(hostname=host, host=Checked(each), port=port, family=socket.AF_UNSPEC, proto=0, flags=0)
            for each in addresses[:MOST_DIALLED]
        ]


def _open_socket(place: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for a checked address, and for no other, wherever aiohttp may have it from."""
    family, kind, protocol, _, (address, *_) = place
    if not isinstance(address, Checked):
        raise BlockedError(f"{address!r} was not checked")
    return socket.socket(family, kind, protocol)


def open_session(
    connector: CheckedConnector, timeout: aiohttp.ClientTimeout, proxy: str | None = None
) -> aiohttp.ClientSession:
    """A client that says who it is, keeps no cookies, leaves bodies as they come and asks the environment nothing."""
    return aiohttp.ClientSession(
        connector=connector, headers=HEADERS, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
        timeout=timeout, proxy=proxy,
    )  # fmt: skip


def written(url: httpx.URL) -> yarl.URL:
    """The address as it is written, for aiohttp, which would else write it anew; without user, password, fragment."""
    return yarl.URL(f"{url.scheme}://{url.netloc.decode()}{url.raw_path.decode()}", encoded=True)


def _wrapped(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address inside an IPv4-mapped, 6to4 or NAT64 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
