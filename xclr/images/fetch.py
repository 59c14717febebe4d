"""Downloads of pictures: many at once, a few from each host, every outcome accounted for.

Nothing private is reached (xclr/images/address.py), no name, password or cookie is sent, proxies in the environment are
not used, and every hop of a redirect is checked like the first.
"""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType

import httpcore
import httpx

from xclr import __version__
from xclr.images.address import BlockedError, CheckedBackend, UnresolvedError

REDIRECTS = frozenset({301, 302, 303, 307, 308})
AGAIN = frozenset({"http_429", "http_5xx", "timeout", "connection"})  # where another try may help
NO_AI = frozenset({"noai", "noimageai"})
HEADERS: Mapping[bytes | str, bytes | str] = {
    "User-Agent": f"xclr/{__version__}",
    "Accept": "image/*,*/*;q=0.5",
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True)
class Limits:
    """What one download and all of them may take."""

    in_flight: int = 64
    per_host: int = 8
    connect_s: float = 10.0
    read_s: float = 10.0
    total_s: float = 60.0
    max_bytes: int = 20 * 2**20
    redirects: int = 5
    attempts: int = 2
    wait_s: float = 1.0  # before another try
    longest_wait_s: float = 30.0  # that a server may ask for


@dataclass(frozen=True)
class Fetched:
    """The outcome of a download: a status of schema.STATUSES; `data` where it is ok."""

    status: str
    data: bytes | None = None
    http: int | None = None
    error: str | None = None
    attempt: int = 1
    wait_s: float | None = None  # asked for by the server


class Fetcher:
    """Downloads in a thread of its own; a context manager, which gives up what is still under way when it closes."""

    def __init__(self, allow_hosts: Iterable[str] = (), limits: Limits | None = None) -> None:
        self.allow_hosts, self.limits = tuple(allow_hosts), limits or Limits()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.hosts: dict[str, asyncio.Semaphore] = {}

    def __enter__(self) -> Fetcher:
        self.loop.set_default_executor(ThreadPoolExecutor(self.limits.in_flight))  # for the resolver
        self.slots = asyncio.Semaphore(self.limits.in_flight)
        self.pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=None,
            max_keepalive_connections=self.limits.in_flight,
            network_backend=CheckedBackend(self.allow_hosts),
        )
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def submit(self, url: str) -> Future[Fetched]:
        """Begin to download an address."""
        return asyncio.run_coroutine_threadsafe(self._fetch(url), self.loop)

    async def _close(self) -> None:
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self.pool.aclose()

    async def _fetch(self, text: str) -> Fetched:
        try:
            url = _checked(httpx.URL(text.strip()))
        except (httpx.InvalidURL, BlockedError, ValueError) as error:
            return Fetched("blocked", error=str(error))
        host = self.hosts.setdefault(url.host, asyncio.Semaphore(self.limits.per_host))
        async with host, self.slots:
            for attempt in range(1, self.limits.attempts + 1):
                found = replace(await self._try(url), attempt=attempt)
                if found.status not in AGAIN or attempt == self.limits.attempts:
                    break
                await asyncio.sleep(min(found.wait_s or self.limits.wait_s, self.limits.longest_wait_s))
        return found

    async def _try(self, url: httpx.URL) -> Fetched:
        try:
            async with asyncio.timeout(self.limits.total_s):
                return await self._follow(url)
        except BlockedError as error:
            return Fetched("blocked", error=str(error))
        except UnresolvedError as error:
            return Fetched("dns", error=str(error))
        except (TimeoutError, httpcore.TimeoutException) as error:
            return Fetched("timeout", error=type(error).__name__)
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            return Fetched("tls" if _is_tls(error) else "connection", error=f"{type(error).__name__}: {error}"[:200])

    async def _follow(self, url: httpx.URL) -> Fetched:
        for _ in range(self.limits.redirects + 1):
            async with self.pool.stream(
                "GET", str(url), headers=HEADERS, extensions={"timeout": self._timeouts()}
            ) as response:
                headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
                if response.status not in REDIRECTS:
                    return await self._answer(response, headers)
            location = headers.get("location")
            if not location:
                return Fetched("redirect", http=response.status, error="no Location")
            try:
                url = _checked(url.join(location))
            except (httpx.InvalidURL, ValueError) as error:
                return Fetched("redirect", http=response.status, error=f"Location {location[:100]!r}: {error}")
        return Fetched("redirect", http=response.status, error=f"more than {self.limits.redirects}")

    async def _answer(self, response: httpcore.Response, headers: Mapping[str, str]) -> Fetched:
        if not 200 <= response.status < 300:
            wait_s = _retry_after(headers.get("retry-after"))
            return Fetched(_status(response.status), http=response.status, error="no picture", wait_s=wait_s)
        if _forbids(headers.get("x-robots-tag", "")):
            return Fetched("robots", http=response.status, error=f"X-Robots-Tag: {headers['x-robots-tag'][:100]}")
        too_large = Fetched("too_large", http=response.status, error=f"more than {self.limits.max_bytes} bytes")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self.limits.max_bytes:
            return too_large
        body = bytearray()
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > self.limits.max_bytes:
                return too_large
        return Fetched("ok", data=bytes(body), http=response.status)

    def _timeouts(self) -> dict[str, float]:
        return {"connect": self.limits.connect_s, "read": self.limits.read_s, "write": self.limits.read_s}


def _checked(url: httpx.URL) -> httpx.URL:
    """The address without a name and password; raises BlockedError for another scheme than http(s)."""
    if url.scheme not in {"http", "https"} or not url.host:
        raise BlockedError(f"not an http(s) address: {str(url)[:100]}")
    return url.copy_with(userinfo=b"", fragment=None)


def _status(code: int) -> str:
    if code == 429:
        return "http_429"
    return "http_4xx" if 400 <= code < 500 else "http_5xx" if code >= 500 else "redirect"


def _retry_after(value: str | None) -> float | None:
    """Seconds from now; a header holds them, or a date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _forbids(header: str) -> bool:
    """True when X-Robots-Tag forbids use in training; a directive may name an agent before it."""
    return any(each.rpartition(":")[2].strip().lower() in NO_AI for each in header.split(","))


def _is_tls(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
