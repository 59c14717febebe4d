"""The page of a sweep as a person opens it: from a file, in a real browser."""

from __future__ import annotations

import pytest

from tests.kit.cells import in_every_state
from tests.kit.pages import DESKTOP, HOSTILE, PHONE
from xclr.report.sweep_page import write_sweep_page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The page of a sweep one of whose cells failed for a reason that a stranger wrote."""
    return write_sweep_page(tmp_path_factory.mktemp("sweep"), in_every_state(HOSTILE), None)


def test_a_person_finds_the_table_the_best_and_the_plots(opened):
    page = opened(viewport=DESKTOP)
    table = page.locator("section[aria-labelledby=scores] table").first
    assert table.get_by_role("rowheader").all_inner_texts() == ["simclr", "xclr", "xclr", "xclr"]
    assert table.locator("strong").count() >= 1
    assert page.get_by_text("best by ImageNet: xclr target_temperature=0.1").is_visible()
    plots = page.get_by_role("img")
    assert plots.count() == 5
    assert all(plots.nth(each).bounding_box()["height"] > 100 for each in range(5))


def test_the_file_asks_for_nothing_else_and_complains_of_nothing(opened, path):
    page = opened()
    assert [url for url in page.requests if not url.startswith("data:")] == [path.as_uri()]
    assert page.complaints == []


def test_a_strangers_reason_is_text(opened):
    page = opened()
    assert page.evaluate("document.scripts.length") == 0
    assert page.locator("[onerror]").count() == 0
    assert page.locator("td", has_text=HOSTILE).is_visible()
    assert page.complaints == []


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_sticks_out_sideways_and_words_in_plots_can_be_read(opened, viewport):
    page = opened(viewport=viewport)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    heights = page.locator("svg text").evaluate_all("all => all.map(each => each.getBoundingClientRect().height)")
    assert min(heights) > 8


def test_a_dark_screen_has_light_words_on_its_plots(opened):
    light, dark = (
        opened(color_scheme=scheme).evaluate(
            """() => getComputedStyle(document.querySelector('.parallel svg text')).fill
               .match(/\\d+/g).slice(0, 3).reduce((sum, each) => sum + Number(each), 0)"""
        )
        for scheme in ("light", "dark")
    )
    assert light < 200
    assert dark > 600  # of 765, white
