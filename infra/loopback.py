"""This machine is asked directly, whatever proxy leads to others."""

from __future__ import annotations

import urllib.request
from collections.abc import MutableMapping

PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
HOSTS = ("127.0.0.1", "localhost")
NAMES = ("no_proxy", "NO_PROXY")  # clients read one or the other
open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def names_a_proxy(environment: MutableMapping[str, str]) -> bool:
    """True when an environment sends requests through a proxy, as on the nodes of many clusters."""
    return any(
        value and name.lower() in {"http_proxy", "https_proxy", "all_proxy"} for name, value in environment.items()
    )


def spare_loopback(environment: MutableMapping[str, str]) -> None:
    """Keep the clients of Prefect and MLflow, here and in children, from asking this machine through a proxy."""
    if not names_a_proxy(environment):
        return
    said = ",".join(environment.get(name, "") for name in NAMES).split(",")
    hosts = dict.fromkeys([*(host.strip() for host in said if host.strip()), *HOSTS])
    environment.update(dict.fromkeys(NAMES, ",".join(hosts)))
