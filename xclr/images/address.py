"""Which addresses downloads may connect to, and connections to exactly the address that was checked."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

import httpcore

NAT64 = ipaddress.ip_network("64:ff9b::/96")  # the last 32 bits are an IPv4 address


class BlockedError(Exception):
    """An address that is not public, or a scheme that is not http(s)."""


class UnresolvedError(Exception):
    """A name without an address."""


def is_public(address: str) -> bool:
    """True for an IPv4 or IPv6 address of the public internet; one that holds an IPv4 address is judged by that too."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast and not ip.is_reserved
    if ip in NAT64:
        return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip.ipv4_mapped is not None:
        return is_public(str(ip.ipv4_mapped))
    held = all(is_public(str(each)) for each in inner if each is not None)
    return held and ip.is_global and not ip.is_multicast and not ip.is_reserved


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Resolves a host, checks every address it has, and connects to one that was checked.

    The check sees what the resolver made of the host, so no spelling of a private address gets past it. `allowed`
    names hosts (or host:port) that may be private.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = frozenset(each.strip().lower() for each in allowed)
        self.inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:  # fmt: skip
        """Connect to the first address that answers; raises BlockedError when one of them is not public."""
        addresses = await self._addresses(host, port)
        if not self.allowed & {host.lower(), f"{host.lower()}:{port}"}:
            for each in addresses:
                if not is_public(each):
                    raise BlockedError(f"{host} is at {each}, which is not public")
        for each in addresses[:-1]:
            try:
                return await self.inner.connect_tcp(each, port, timeout, local_address, socket_options)
            except httpcore.ConnectError:
                continue
        return await self.inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise BlockedError("a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self.inner.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise UnresolvedError(f"{host}: {error}") from error
        return list(dict.fromkeys(str(each[4][0]) for each in found))
