"""Pictures over HTTP: many at once, each with an outcome whatever its server does, none from a private address."""

from __future__ import annotations

import asyncio
import errno
import ssl
import time
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import aiohttp
import anyio.from_thread
import httpx

from xclr.address import (
    AGENT,
    MOST_NAMES,
    NAME,
    BlockedError,
    CheckedConnector,
    LookupFailedError,
    check,
    is_allowed,
    open_session,
    spelled_out,
    written,
)
from xclr.errors import JobError
from xclr.images.outcome import Limits, Outcome, Start
from xclr.recipe import host_of

ACCEPT = {"Accept": "image/*,*/*;q=0.5"}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
NO_AI = frozenset({"noai", "noimageai"})  # X-Robots-Tag
VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})  # name: value
PACKED = frozenset({"gzip", "x-gzip", "deflate"})  # what servers send unasked
AGAIN = frozenset({"http_429", "http_5xx", "connection", "timeout"})  # may be better a moment later
MOST_PORT = 65_535
ERROR_LENGTH = 200  # characters
PIECES, LEAST_PIECE = 1_000, 64  # chunks from which on each must have so many bytes: 16 servers of one-byte chunks
# kept the event loop busy for a minute


class TooLargeError(Exception):
    """A body is larger than the limit."""


class CrumbsError(Exception):
    """A body comes in pieces that cost more than they bring."""


class PackedError(Exception):
    """A body is compressed in a way that is not undone."""


FAILURES: tuple[tuple[type[Exception], str], ...] = (  # the first that fits
    (BlockedError, "blocked"),
    (LookupFailedError, "dns"),
    (TooLargeError, "too_large"),
    (PackedError, "decode"),
    (zlib.error, "decode"),
    (ssl.SSLError, "tls"),
    (TimeoutError, "timeout"),
)  # whatever else a server, a proxy or a library raises is "connection"
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})  # this machine's fault, no picture's
UNREACHED = (LookupFailedError, aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


@contextmanager
def downloading(limits: Limits, context: ssl.SSLContext | None = None) -> Iterator[Start]:
    """Downloads beside the caller's work: yields `start(url)`, whose future holds the outcome.

    Its only error is JobError, when this machine has no more descriptors or memory.

    Neither cookies nor credentials are kept or sent; the environment's proxies are ignored, limits.proxy is not.
    `context` is what certificates are checked with, the usual authorities when None.
    """
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_session(limits, context)) as session,
    ):
        fetch, loop = Downloads(limits, session).fetch, portal.call(_loop)
        yield lambda url: asyncio.run_coroutine_threadsafe(fetch(url), loop)


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@asynccontextmanager
async def _session(limits: Limits, context: ssl.SSLContext | None) -> AsyncIterator[aiohttp.ClientSession]:
    """Made where its event loop runs."""
    allow = (*limits.allow_hosts, *([host_of(limits.proxy)] if limits.proxy else []))
    connector = CheckedConnector(allow, context or httpx.create_ssl_context(), limits.connect_s)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_s, sock_read=limits.read_s)
    async with open_session(connector, timeout, limits.proxy) as session:
        yield session


class Downloads:
    """Downloads that share connections and take turns."""

    def __init__(self, limits: Limits, session: aiohttp.ClientSession) -> None:
        self.limits, self._session = limits, session
        self._slots = asyncio.Semaphore(limits.in_flight)
        self._hosts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # of those asked now
        self._left_alone: OrderedDict[bytes, float] = OrderedDict()  # until when, servers that asked for it

    async def fetch(self, url: str) -> Outcome:
        """The outcome of a URL after as many tries as it deserves."""
        attempt = 1
        while True:
            outcome = replace(await self._try(url), attempt=attempt, host=_host(url))
            wait_s = self.limits.backoff_s * attempt if outcome.retry_after_s is None else outcome.retry_after_s
            again = outcome.status in AGAIN and wait_s <= self.limits.longest_wait_s
            if not again or attempt >= self.limits.tries:
                return outcome
            await asyncio.sleep(wait_s)
            attempt += 1

    async def _try(self, url: str) -> Outcome:
        """Follow redirects by hand, so that each hop is checked like the first."""
        left_s = self.limits.total_s
        for hop in range(self.limits.redirects + 1):
            target = _target(url, self.limits)
            if isinstance(target, Outcome):
                return target if hop == 0 else replace(target, error=f"redirected to {url[:80]}: {target.error}")
            async with self._turn(target) as began:
                answer = self._not_asked(target) or await self._answer(target, left_s)
                left_s -= time.monotonic() - began
            if isinstance(answer, Outcome):
                return answer
            url = answer
        return Outcome("redirect", error=f"more than {self.limits.redirects} redirects")

    @asynccontextmanager
    async def _turn(self, target: httpx.URL) -> AsyncIterator[float]:
        """A slot of the host, once it is ready, then one of all: no other host is kept waiting. Gives when it began."""
        gate = self._hosts.get(target.host)
        if gate is None:
            gate = self._hosts[target.host] = asyncio.Semaphore(self.limits.per_host)
        async with gate:
            while 0 < (wait_s := self._wait_s(target)) <= self.limits.longest_wait_s:
                await asyncio.sleep(wait_s)
            async with self._slots:
                yield time.monotonic()

    def _wait_s(self, target: httpx.URL) -> float:
        """How long its server wants to be left alone yet."""
        return self._left_alone.get(target.netloc, 0.0) - time.monotonic()

    def _not_asked(self, target: httpx.URL) -> Outcome | None:
        """What becomes of a picture whose server wants to be left alone for long, without being asked."""
        if (wait_s := self._wait_s(target)) <= self.limits.longest_wait_s:
            return None
        told = f"not asked: {target.host} wants to be left alone for {wait_s:,.0f} s"
        return Outcome("http_429", error=told, retry_after_s=wait_s)

    def _leave_alone(self, target: httpx.URL, wait_s: float) -> None:
        """Take note of what a server asks for by Retry-After."""
        self._left_alone[target.netloc] = time.monotonic() + wait_s
        if len(self._left_alone) > MOST_NAMES:
            self._left_alone.popitem(last=False)

    async def _answer(self, target: httpx.URL, left_s: float) -> Outcome | str:
        """An outcome, or where the server redirects to."""
        try:
            async with asyncio.timeout(max(left_s, 0.0)):
                return await self._ask(target)
        except Exception as error:  # noqa: BLE001 - a list would forget one, and no picture is worth the others
            _check_machine(error)
            return _failed(error, self.limits)

    async def _ask(self, target: httpx.URL) -> Outcome | str:
        async with self._session.get(written(target), headers=ACCEPT, allow_redirects=False) as answer:
            if answer.status in REDIRECTS:
                return _location(target, answer)
            refused = _refused(answer, self.limits)
            if refused and answer.status == 429 and refused.retry_after_s:
                self._leave_alone(target, refused.retry_after_s)
            return refused or Outcome("ok", answer.status, data=await _body(answer, self.limits.most_bytes))


async def _body(answer: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """The body, unpacked; raises TooLargeError as soon as it is known to exceed the limit, PackedError, zlib.error."""
    packing = answer.headers.get("content-encoding", "identity").strip().lower() or "identity"
    if packing not in PACKED | {"identity"}:
        raise PackedError(f"Content-Encoding {packing} was not asked for")
    announced = answer.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most_bytes:
        raise TooLargeError
    parts, total = [], 0
    async for piece, _ in answer.content.iter_chunks():
        total += len(piece)
        if total > most_bytes:
            raise TooLargeError
        parts.append(piece)
        if len(parts) > PIECES and total < LEAST_PIECE * len(parts):
            raise CrumbsError(f"{len(parts):,} chunks of {total:,} bytes")
    body = b"".join(parts)
    return _unpacked(body, most_bytes) if packing in PACKED else body


def _unpacked(body: bytes, most_bytes: int) -> bytes:
    """Undo one compression; httpx undoes any number, whole pieces at once: 3.5 KB packed twice took 4 GB."""
    data = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body, most_bytes + 1)  # 32: gzip or zlib
    if len(data) > most_bytes:
        raise TooLargeError
    return data


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _target(url: str, limits: Limits) -> httpx.URL | Outcome:
    """The URL, its host without a last dot, or why it cannot be asked."""
    try:
        target = httpx.URL(url)
        if target.scheme not in {"http", "https"}:
            return Outcome("blocked", error=f"scheme {target.scheme or '(none)'} is neither http nor https")
        if not target.host or not (target.port is None or 0 < target.port <= MOST_PORT):
            return Outcome("blocked", error="no host, or no such port")
        host = target.host.rstrip(".")
        if limits.proxy and not is_allowed(host, target.port, limits.allow_hosts):
            _check_for_proxy(target, host)
        return target if host == target.host else target.copy_with(host=host)
    except BlockedError as error:
        return Outcome("blocked", error=str(error))
    except (httpx.InvalidURL, ValueError) as error:
        return Outcome("blocked", error=f"not a URL: {error}"[:ERROR_LENGTH])


def _check_for_proxy(target: httpx.URL, host: str) -> None:
    """Raise BlockedError for a host that is private as it is written; what a proxy resolves it to is not seen."""
    if not NAME.fullmatch(target.raw_host.decode()):
        raise BlockedError(f"{host!r} is no name that a proxy is asked for")
    check(host, spelled_out(host))


def _location(target: httpx.URL, answer: aiohttp.ClientResponse) -> Outcome | str:
    location = answer.headers.get("location", "").strip()
    if not location:
        return Outcome("redirect", answer.status, f"HTTP {answer.status} without Location")
    try:
        return str(target.join(location))
    except (httpx.InvalidURL, ValueError) as error:
        return Outcome("redirect", answer.status, f"bad Location: {error}"[:ERROR_LENGTH])


def _refused(answer: aiohttp.ClientResponse, limits: Limits) -> Outcome | None:
    """The outcome of an answer that holds no picture for us."""
    code = answer.status
    if not 200 <= code < 300:
        status = "http_429" if code == 429 else {3: "redirect", 4: "http_4xx"}.get(code // 100, "http_5xx")
        wait_s = _retry_after_s(answer.headers.get("retry-after"), datetime.now(UTC))
        return Outcome(status, code, f"HTTP {code}", retry_after_s=wait_s)
    tags = answer.headers.getall("x-robots-tag", [])
    if limits.robots and any(forbids(tag) for tag in tags):
        return Outcome("robots", code, _told(f"X-Robots-Tag: {', '.join(tags)}"))
    return None


def forbids(tag: str) -> bool:
    """True when an X-Robots-Tag says noai or noimageai to everyone or to this program."""
    agent = ""
    for directive in tag.lower().split(","):
        named, colon, rest = directive.partition(":")
        if colon and named.strip() not in VALUED:
            agent = named.strip()
        if (rest if colon else directive).strip() in NO_AI and agent in {"", "*", AGENT}:
            return True
    return False


def _retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds that a server asks to wait, by number or by date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - now).total_seconds())


def _check_machine(error: BaseException | None) -> None:
    """Raise JobError when what lies behind a failure is that this machine has no more descriptors or memory."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in EXHAUSTED):
            raise JobError(
                f"this machine has no more to download with: {error}",
                "raise its limit (ulimit -n, memory_gb) or lower data.download.connections, and run again: finished "
                "shards stay",
            ) from error
        error = error.__cause__ or error.__context__


def _failed(error: Exception, limits: Limits) -> Outcome:
    behind = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error  # TLS that ends amid an answer
    status = next((status for kind, status in FAILURES if isinstance(behind, kind)), "connection")
    if isinstance(error, TooLargeError):
        return Outcome(status, error=f"larger than {limits.most_bytes:,} bytes")
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
        return Outcome(status, error=f"not done within {limits.total_s:g} s")
    text = str(error) if status in {"blocked", "dns"} else f"{type(error).__name__}: {error}".removesuffix(": ")
    return Outcome(status, error=_told(text), reached=_is_answered(error, status))


def _is_answered(error: Exception, status: str) -> bool:
    """Whether a failure came from the network: from a server, or from a name server that knows no such name."""
    if isinstance(error, LookupFailedError):
        return not error.passing
    return status == "tls" or not isinstance(error, UNREACHED)


def _told(text: str) -> str:
    """A short text of a server, bytes that are no UTF-8 spelled out, which no table would take."""
    return text[:ERROR_LENGTH].encode(errors="backslashreplace").decode()
