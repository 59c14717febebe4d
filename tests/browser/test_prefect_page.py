"""Prefect's pages as a person uses them: a run's tasks and its table."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from infra.home.runs import read_runs

pytestmark = pytest.mark.slow


def test_a_run_shows_its_tasks_and_its_table(browser: Browser, served, smoke_home):
    (flow_run,) = [each.flow_run for each in read_runs(smoke_home) if each.state == "completed"]
    page = browser.new_page(viewport={"width": 1500, "height": 1100})
    page.set_default_timeout(120_000)
    page.goto(f"{served.prefect}/login?redirect=/runs")
    page.locator("input[type=password]").fill(served.auth)
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs")
    page.goto(f"{served.prefect}/runs/flow-run/{flow_run}")
    page.get_by_text("Task Runs", exact=True).click()
    for name in ("captions", "graph", "pretrain xclr seed 0", "imagenet xclr seed 0", "comparison"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=30_000)
    page.get_by_text("Artifacts", exact=True).click()
    expect(page.get_by_text("smoke-comparison").first).to_be_visible()
    page.close()
