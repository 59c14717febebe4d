"""The page about a graph as a person opens it: from a file, in a real browser."""

from __future__ import annotations

import pytest

from tests.kit.pages import DESKTOP

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def path(graph_page):
    """What these tests open."""
    return graph_page


def shown(page):
    return page.locator(".question:visible")


def test_a_person_sees_distributions_pairs_and_pictures(opened):
    page = opened(viewport=DESKTOP)
    for name in ("degrees", "similarities", "target entropy"):
        plot = page.get_by_role("img", name=name, exact=True)
        assert plot.is_visible() and plot.bounding_box()["height"] > 100
    assert page.get_by_role("heading", name="Components").is_visible()
    assert page.locator(".list").first.get_by_role("row").count() > 1
    assert shown(page).count() == 12
    widths = page.locator("img").evaluate_all("all => all.map(each => each.naturalWidth)")
    assert len(widths) > 100 and set(widths) == {64}


def test_a_person_leafs_through_and_finds_a_caption(opened):
    page = opened(viewport=DESKTOP)
    status, back, following = page.get_by_role("status"), *page.get_by_role("button").all()
    assert status.inner_text() == "page 1 of 7, 80 pictures" and back.is_disabled()
    first = shown(page).first.inner_text()
    for _ in range(6):
        following.click()
    assert status.inner_text() == "page 7 of 7, 80 pictures" and following.is_disabled()
    assert shown(page).count() == 80 - 6 * 12 and shown(page).first.inner_text() != first
    page.get_by_role("searchbox").fill("royalblue 2 ".strip())
    assert "page 1 of" in status.inner_text()
    assert all("royalblue 2" in each.lower() for each in shown(page).all_inner_texts())
    page.get_by_role("searchbox").fill("zebra")
    assert status.inner_text() == "no picture with this word" and shown(page).count() == 0
    page.get_by_role("searchbox").fill("")
    assert shown(page).first.inner_text() == first


def test_without_scripts_all_pictures_are_there(opened):
    page = opened(java_script_enabled=False)
    assert page.locator(".question").count() == page.locator(".question:visible").count() == 80
    assert not page.get_by_role("searchbox").is_visible()
