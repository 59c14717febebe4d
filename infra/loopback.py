"""This machine is asked directly, whatever proxy leads to others."""

from __future__ import annotations

import urllib.request
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
HOSTS = ("127.0.0.1", "localhost")
NAMES = ("no_proxy", "NO_PROXY")  # clients read one or the other


def names_a_proxy(environment: MutableMapping[str, str]) -> bool:
    """True when an environment sends requests through a proxy, as on the nodes of many clusters."""
    return any(value and name.lower() in PROXIES for name, value in environment.items())


def spare_loopback(environment: MutableMapping[str, str]) -> None:
    """Keep the clients of Prefect and MLflow, here and in children, from asking this machine through a proxy."""
    if not names_a_proxy(environment):
        return
    said = ",".join(environment.get(name, "") for name in NAMES).split(",")
    hosts = dict.fromkeys([*(host.strip() for host in said if host.strip()), *HOSTS])
    environment.update(dict.fromkeys(NAMES, ",".join(hosts)))


def open_url(request: urllib.request.Request, timeout: float) -> Any:  # noqa: ANN401 - urllib's own
    """Answer of a server: of this machine directly, of others as the environment says at this moment."""
    here = [urllib.request.ProxyHandler({})] if urlsplit(request.full_url).hostname in HOSTS else []
    return urllib.request.build_opener(*here).open(request, timeout=timeout)
