"""MLflow's pages as a person uses them: tick CLIP and X-CLR, press Compare."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mlflow import MlflowClient
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.slow


def what_scrolling_shows(page: Page) -> Iterator[str]:
    """The page's text at every place of its table of metrics, which holds only the rows that are seen."""
    first = page.get_by_text("eval/imagenet9/gap_gap")
    first.scroll_into_view_if_needed()
    box = first.bounding_box()
    page.mouse.move(box["x"] + 500, box["y"] + 5)
    for _ in range(12):
        yield page.locator("body").inner_text()
        page.mouse.wheel(0, 100)
        page.wait_for_timeout(100)  # the page draws


def test_clip_and_xclr_side_by_side(browser: Browser, served):
    client = MlflowClient(served.mlflow)
    experiment = client.get_experiment_by_name("smoke").experiment_id
    runs = {each.data.tags.get("method"): each for each in client.search_runs([experiment])}
    page = browser.new_page(viewport={"width": 1500, "height": 1100})
    page.goto(f"{served.mlflow}/#/experiments/{experiment}/runs?workflowType=machine_learning")
    for method in ("clip", "xclr"):
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=runs[method].info.run_name))
        row.get_by_role("checkbox").first.check()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("Comparing 2 Runs")).to_be_visible(timeout=30_000)
    text = "\n".join(what_scrolling_shows(page))
    for method in ("clip", "xclr"):
        assert runs[method].info.run_name in text
        for name, value in runs[method].data.metrics.items():
            if name.startswith("eval/"):
                assert name in text
                assert str(round(value, 3)) in text, f"{method} {name}"
    page.close()
