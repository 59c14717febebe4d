"""What holds of every page: it is one file, on a screen of any width, in the dark and on paper."""

from __future__ import annotations

import pytest

from tests.kit.pages import HOSTILE, PHONE

pytestmark = pytest.mark.slow

WIDTHS = (PHONE["width"], 794, 1300, 1920)
PAPER = (718, 1047)  # A4 upright and on its side without its margins, pixels
STICKS_OUT = """() => [...document.querySelectorAll('main *')]
    .filter(each => each.checkVisibility() && !each.closest('svg, .tile span'))
    .filter(each => each.getBoundingClientRect().right > innerWidth + 1)
    .map(each => each.outerHTML.slice(0, 80))"""
SCROLLS = """() => [...document.querySelectorAll('.scroll, .list, pre')]
    .filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.textContent.slice(0, 80))"""
BRIGHTNESS = """() => [['body', 'backgroundColor'], ['svg text', 'fill'], ['td', 'color']]
    .map(([each, name]) => getComputedStyle(document.querySelector(each))[name])
    .map(colour => colour.endsWith(', 0)') ? 765
        : colour.match(/\\d+/g).slice(0, 3).reduce((sum, each) => sum + Number(each), 0))"""  # 765: white


@pytest.fixture(scope="module", params=["compare", "graph", "sweep", "study"])
def path(request):
    """Every page in its turn."""
    return request.getfixturevalue(f"{request.param}_page")


def test_it_asks_for_nothing_else_and_a_strangers_words_are_text(opened, path):
    page = opened()
    assert [url for url in page.requests if not url.startswith("data:")] == [path.as_uri()]
    assert page.evaluate("document.scripts.length") == (path.name == "graph.html"), "the page's own"
    assert page.locator("[onerror]").count() == 0
    assert HOSTILE in page.locator("body").inner_text()
    assert page.complaints == []


def test_a_screen_of_any_width_holds_it_and_a_wide_one_its_tables(opened):
    page = opened()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        heights = page.locator("svg text:visible").evaluate_all(
            "all => all.map(each => each.getBoundingClientRect().height)"
        )
        assert min(heights) > 8
        assert width < 1300 or page.locator(".scroll").evaluate_all(
            "all => all.every(each => each.scrollWidth <= each.clientWidth)"
        )


def test_paper_has_all_of_it_in_the_colours_of_paper(opened):
    page = opened(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    for width in PAPER:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(STICKS_OUT) == page.evaluate(SCROLLS) == []
    paper, axes, words = page.evaluate(BRIGHTNESS)
    assert paper > 700 and max(axes, words) < 200
    assert page.evaluate(
        "[...document.querySelectorAll('details > :not(summary)')].every(each => each.checkVisibility())"
    )
    kept = (
        "all => all.map(each => [getComputedStyle(each).breakInside, getComputedStyle(each).printColorAdjust].join())"
    )
    assert set(page.locator("figure, tr").evaluate_all(kept)) == {"avoid,exact"}


def test_a_dark_screen_has_a_dark_page_with_light_words_and_axes(opened):
    (light_paper, *light_words), (dark_paper, *dark_words) = (
        opened(color_scheme=scheme).evaluate(BRIGHTNESS) for scheme in ("light", "dark")
    )
    assert min(light_paper, *dark_words) > 600 and max(dark_paper, *light_words) < 200
