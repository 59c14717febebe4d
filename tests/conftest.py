"""What all tests stand on: groups, seeds, databases, one finished smoke run, and the servers over it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.kit.command import run_xclr, start_xclr, succeeds
from tests.kit.databases import FOLDER, give_databases
from tests.kit.groups import Groups, rank_of
from tests.kit.servers import PROXIED, Served, serving

# one thread for whoever computes here: two processes of tests share the cores; nothing is reported to anybody
os.environ |= {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Groups:
    """Whatever --dist says; groups in the order of the tests."""
    config.option.loadscopereorder = False
    return Groups(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long groups first, folders together; hypothesis draws from the seed that is printed."""
    folders = list(dict.fromkeys(item.path.parent for item in items))
    items.sort(key=lambda item: (rank_of(item.nodeid), folders.index(item.path.parent)))
    for item in items:
        if hypothesis.is_hypothesis_test(item.obj) and (seed := config.getoption("randomly_seed", None)) is not None:
            hypothesis.seed(seed)(item.obj)


@pytest.fixture(scope="session", autouse=True)
def _databases(request, tmp_path_factory) -> None:
    """Where the session's empty databases are, for all its processes."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if hasattr(request.config, "workerinput") else own) / "databases"
    folder.mkdir(exist_ok=True)
    os.environ[FOLDER] = str(folder)


@pytest.fixture(scope="session")
def own_home(tmp_path_factory) -> Path:
    """A HOME, which no test changes, with a run of two seeds over own pictures; its table lies beside it."""
    from tests.kit.finished import finish, own_recipe

    folder = tmp_path_factory.mktemp("own")
    finish(folder / "home", own_recipe(folder, "a drawing of", seeds=[0, 1]))
    return folder / "home"


@pytest.fixture(scope="session")
def smoke_home(tmp_path_factory) -> Path:
    """A HOME, which no test changes, in which the smoke recipe was killed in the middle and then run to its end.

    As on clusters, the environment names a proxy, which leads nowhere.
    """
    home = give_databases(tmp_path_factory.mktemp("smoke") / "home")
    process = start_xclr(home, "run", "smoke", environment=PROXIED)
    for line in process.stderr:
        if "images" in line:
            break
    process.kill()
    process.wait()
    before = [path.parent for path in home.glob("artifacts/*/*/manifest.json")]
    done = succeeds(run_xclr("run", "smoke", "--home", str(home), cwd=home.parent, **PROXIED))
    found = re.search(r"(\d+) of \d+ stages found", done.stderr)
    assert found and int(found[1]) >= len(before) > 0, "a finished stage was made again"
    (home / "table.txt").write_text(done.stdout)
    (home / "said.txt").write_text(done.stderr)
    return home


@pytest.fixture(scope="session")
def served(smoke_home: Path, tmp_path_factory) -> Iterator[Served]:
    """`xclr serve` over a copy of the smoke run, in which tests may run more."""
    with serving(shutil.copytree(smoke_home, tmp_path_factory.mktemp("served") / "home")) as addresses:
        yield addresses
