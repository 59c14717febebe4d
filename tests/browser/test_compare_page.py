"""The comparison page as a person opens it: from a file, in a real browser."""

from __future__ import annotations

import pytest

from tests.kit.pages import DESKTOP, HOSTILE
from xclr.report.page import GLOSSARY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def path(compare_page):
    """What these tests open."""
    return compare_page


def test_a_person_finds_table_curves_and_thumbnails(opened):
    page = opened(viewport=DESKTOP)
    table = page.get_by_role("table").first
    heads = table.get_by_role("columnheader").all_inner_texts()
    assert heads[:4] == ["method", "targets from", "uses", "ImageNet†\n%"] and "bg gap†\npoints" in heads
    assert table.get_by_role("rowheader").all_inner_texts() == ["random", "clip", "xclr"]
    assert table.locator("strong").count() >= 1
    for method in ("clip (pairs)", "xclr (captions)"):
        curve = page.get_by_role("img", name=method, exact=True)
        assert curve.is_visible()
        assert curve.bounding_box()["height"] > 100
    panels = page.locator("section[aria-labelledby=intervals] svg")
    assert panels.count() == len(GLOSSARY)
    named = ["random", "clip (pairs)", "xclr (captions)"]
    told = "; ".join(f"{name} {mean} ± 8.0" for name, mean in zip(named, ("30.0", "20.0", "40.0"), strict=True))
    assert panels.first.get_attribute("aria-label") == f"ImageNet†, %: {told}"
    assert panels.first.locator("text").all_text_contents()[-3:] == named
    widths = page.locator("img").evaluate_all("all => all.map(each => each.naturalWidth)")
    assert len(widths) > 20
    assert set(widths) == {64}


def test_a_strangers_caption_is_text(opened):
    page = opened()
    assert page.locator("figcaption", has_text=HOSTILE).first.is_visible()
    assert page.locator(".row img").first.get_attribute("alt").startswith(HOSTILE)
