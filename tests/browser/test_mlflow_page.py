"""MLflow's pages as a person uses them: tick CLIP and X-CLR, press Compare, open the view of the scores."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from infra import servers
from infra.tracking.metrics import CI95
from tests.kit.polling import until
from tests.kit.servers import known_to_mlflow

pytestmark = pytest.mark.slow
PATIENCE_MS = 120_000  # for a fault, however slow the machine is


def find_by_scrolling(page: Page, words: set[str]) -> None:
    """Scroll the table of metrics, which holds only the rows that are seen, until all words were on it."""
    first = page.get_by_text("eval/imagenet9/gap", exact=True)
    expect(first).to_be_attached()
    first.scroll_into_view_if_needed()
    box = first.bounding_box()
    page.mouse.move(box["x"] + 500, box["y"] + 5)
    unseen = set(words)

    def look() -> bool:
        text = page.locator("body").inner_text()
        unseen.difference_update({each for each in unseen if each in text})
        page.mouse.wheel(0, 20)
        return not unseen

    until(look)


def test_clip_and_xclr_side_by_side(browser: Browser, served):
    with known_to_mlflow(served) as client:
        experiment = client.get_experiment_by_name("smoke").experiment_id
        runs = {each.data.tags.get("method"): each for each in client.search_runs([experiment])}
    user, _, password = served.auth.partition(":")
    known = {"username": user, "password": password}  # which a person is asked for once
    page = browser.new_page(viewport={"width": 1500, "height": 1100}, http_credentials=known)
    page.set_default_timeout(PATIENCE_MS)
    pages = servers.experiments(served.mlflow, served.auth)
    assert "smoke data" not in pages
    page.goto(pages["smoke"].runs)
    for method in ("clip", "xclr"):
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=runs[method].info.run_name))
        box = row.get_by_role("checkbox").first
        expect(box).to_be_visible()
        box.check()
        expect(box).to_be_checked()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("Comparing 2 Runs")).to_be_visible()
    both = [runs[method] for method in ("clip", "xclr")]
    scores = [
        (name, value)
        for run in both
        for name, value in run.data.metrics.items()
        if name.startswith("eval/") and not name.endswith(CI95)
    ]
    words = {run.info.run_name for run in both} | {name for name, _ in scores}
    find_by_scrolling(page, words | {str(round(value, 3)) for _, value in scores})
    page.goto(pages["smoke"].view)
    expect(page.get_by_text("scores", exact=True)).to_be_visible()
    page.close()
