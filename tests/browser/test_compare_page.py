"""The comparison page as a person opens it: from a file, in a real browser."""

from __future__ import annotations

import pytest

from infra.home.scores import find_runs, read_scores
from tests.kit.finished import finish, own_recipe
from tests.kit.pages import DESKTOP, HOSTILE, PHONE
from xclr.report.page import write_page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The page of a run over pictures whose captions come from a stranger."""
    folder = tmp_path_factory.mktemp("compare")
    finish(folder / "home", own_recipe(folder, HOSTILE))
    return write_page(folder / "home", find_runs(folder / "home", []), [], read_scores(folder / "home", []), None, None)


def test_a_person_finds_table_curves_and_thumbnails(opened):
    page = opened(viewport=DESKTOP)
    table = page.get_by_role("table").first
    assert table.get_by_role("columnheader").all_inner_texts() == ["method", "targets from", "uses", "pictures top-1"]
    assert table.get_by_role("rowheader").all_inner_texts() == ["random", "clip", "xclr"]
    assert table.locator("strong").count() >= 1
    for method in ("clip", "xclr"):
        curve = page.get_by_role("img", name=method, exact=True)
        assert curve.is_visible()
        assert curve.bounding_box()["height"] > 100
    widths = page.locator("img").evaluate_all("all => all.map(each => each.naturalWidth)")
    assert len(widths) > 20
    assert set(widths) == {64}


def test_the_file_asks_for_nothing_else_and_complains_of_nothing(opened, path):
    page = opened()
    assert [url for url in page.requests if not url.startswith("data:")] == [path.as_uri()]
    assert page.complaints == []


def test_a_strangers_caption_is_text(opened):
    page = opened()
    assert page.evaluate("document.scripts.length") == 0
    assert page.locator("[onerror]").count() == 0
    assert page.locator("figcaption", has_text=HOSTILE).first.is_visible()
    assert page.locator(".row img").first.get_attribute("alt").startswith(HOSTILE)
    assert page.complaints == []


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_sticks_out_sideways(opened, viewport):
    page = opened(viewport=viewport)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_a_dark_screen_has_a_dark_page_with_light_words_and_axes(opened):
    light, dark = (
        opened(color_scheme=scheme).evaluate(
            """() => ['body', 'svg text'].map(each => getComputedStyle(document.querySelector(each)))
               .map((style, i) => i ? style.fill : style.backgroundColor)
               .map(colour => colour.match(/\\d+/g).slice(0, 3).reduce((sum, each) => sum + Number(each), 0))"""
        )
        for scheme in ("light", "dark")
    )
    (light_paper, light_axes), (dark_paper, dark_axes) = light, dark
    assert min(light_paper, dark_axes) > 600  # of 765, white
    assert max(dark_paper, light_axes) < 200
