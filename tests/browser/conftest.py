"""Debian's chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pyarrow as pa
import pytest
from playwright.sync_api import expect, sync_playwright

from infra.home.scores import find_runs, read_scores
from tests.kit.cells import in_every_state
from tests.kit.finished import finish, own_recipe
from tests.kit.pages import HOSTILE
from tests.kit.scores import score
from xclr import schema
from xclr.graph.stages import GRAPH_REPORT
from xclr.pipeline import pipeline
from xclr.report.page import write_page
from xclr.report.study import findings
from xclr.report.study_page import write_study_page
from xclr.report.sweep_page import write_sweep_page
from xclr.report.tables import GROUPS
from xclr.store import Store
from xclr.study.outcome import Outcome
from xclr.study.spec import load_study, study_file

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

expect.set_options(timeout=120_000)  # for a fault, however slow the machine is


@pytest.fixture(scope="package")
def browser():
    """A browser for this folder's tests. Playwright keeps an event loop running meanwhile: no asyncio.run beside it."""
    chromium = shutil.which("chromium")
    if chromium is None:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing("chromium is not installed: on Debian, apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def opened(browser, path):
    """Open the file that the module's fixture `path` names, and collect what it asks for and complains of."""
    contexts = []

    def open_page(**options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.requests, page.complaints = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (page.complaints.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri(), wait_until="load")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="package")
def strangers_home(tmp_path_factory):
    """A HOME with a run over 80 pictures whose captions come from a stranger."""
    folder = tmp_path_factory.mktemp("pages")
    finish(folder / "home", own_recipe(folder, HOSTILE, graph={"k": 4, "cutoff": -1}))
    return folder / "home"


@pytest.fixture(scope="package")
def compare_page(strangers_home):
    """The page of that run, with a score in every column that there is: the others' are made up."""
    known = read_scores(strangers_home, []).to_pylist()
    own = {(row["suite"], row["split"], row["metric"]) for row in known}
    methods = {(row["method"], row["graph"]): row for row in known}
    made_up = [
        row | score(*method, 0.2 + 0.1 * place, where=column.key) | {"checkpoint": row["checkpoint"], "ci95": 0.08}
        for group in GROUPS.values()
        for column in group
        if column.key not in own
        for place, (method, row) in enumerate(methods.items())
    ]
    scores = pa.Table.from_pylist(known + made_up, schema.SCORES)
    return write_page(strangers_home, find_runs(strangers_home, []), [], scores, None, None)


@pytest.fixture(scope="package")
def graph_page(strangers_home):
    """The page about that run's graph."""
    store = Store(strangers_home)
    (report,) = pipeline(find_runs(strangers_home, [])[0].recipe, store).of(GRAPH_REPORT)
    return store.reference(report.digest).path / "graph.html"


@pytest.fixture(scope="package")
def sweep_page(tmp_path_factory):
    """The page of a sweep one of whose cells failed for a reason that a stranger wrote."""
    return write_sweep_page(tmp_path_factory.mktemp("sweep"), in_every_state(HOSTILE), None)


@pytest.fixture(scope="package")
def study_page(tmp_path_factory):
    """The page of a study whose question a stranger wrote."""
    study = load_study("emoji").model_copy(update={"resamples": 20, "question": HOSTILE})
    rng = np.random.default_rng(0)
    outcomes = {
        arm: Outcome((rng.random((study.seeds, 60)) < 0.5).astype(float), rng.random(study.seeds)) for arm in study.arms
    }
    return write_study_page(
        tmp_path_factory.mktemp("study"), findings(study, outcomes), study_file("emoji").read_text()
    )
