"""The page of a sweep as a person opens it: from a file, in a real browser."""

from __future__ import annotations

import pytest

from tests.kit.pages import DESKTOP

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def path(sweep_page):
    """What these tests open."""
    return sweep_page


def test_a_person_finds_the_table_the_best_and_the_plots(opened):
    page = opened(viewport=DESKTOP)
    table = page.locator("section[aria-labelledby=scores] table").first
    assert table.get_by_role("rowheader").all_inner_texts() == ["simclr", "xclr", "xclr", "xclr"]
    assert table.locator("strong").count() >= 1
    assert page.get_by_text("best by ImageNet: xclr target_temperature=0.1").is_visible()
    plots = page.get_by_role("img")
    assert plots.count() == 5
    assert all(plots.nth(each).bounding_box()["height"] > 100 for each in range(5))
