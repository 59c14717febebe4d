"""Prefect's pages as a person uses them: a run's tasks and its table."""

from __future__ import annotations

import json
import urllib.request

import pytest
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.slow


def finished_run(prefect: str) -> str:
    """The id of the newest completed flow run."""
    body = {"sort": "START_TIME_DESC", "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    request = urllib.request.Request(
        f"{prefect}/api/flow_runs/filter", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    return json.load(urllib.request.urlopen(request))[0]["id"]


def test_a_run_shows_its_tasks_and_its_table(browser: Browser, served):
    page = browser.new_page(viewport={"width": 1500, "height": 1100})
    page.goto(f"{served.prefect}/runs/flow-run/{finished_run(served.prefect)}")
    page.get_by_text("Task Runs", exact=True).click()
    for name in ("captions", "graph", "pretrain xclr seed 0", "imagenet xclr seed 0", "comparison"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=30_000)
    page.get_by_text("Artifacts", exact=True).click()
    expect(page.get_by_text("smoke-comparison").first).to_be_visible()
    page.close()
