"""Environments that send requests through a proxy; tests/conftest.py runs and serves the smoke recipe in one."""

import pytest

from infra.loopback import spare_loopback


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
def test_this_machine_is_spared_where_a_proxy_is_named(name):
    environment = {name: "http://proxy:3128", "no_proxy": "10.0.0.1, .example", "NO_PROXY": "localhost"}
    spare_loopback(environment)
    assert environment["no_proxy"] == environment["NO_PROXY"] == "10.0.0.1,.example,localhost,127.0.0.1"
    before = dict(environment)
    spare_loopback(environment)
    assert environment == before


@pytest.mark.parametrize("environment", [{}, {"http_proxy": ""}, {"no_proxy": "x"}])
def test_an_environment_without_a_proxy_stays_as_it_is(environment):
    before = dict(environment)
    spare_loopback(environment)
    assert environment == before
