"""Parts of pages: names from outside are names in them."""

import pytest

from xclr.report.html import picture, plot


@pytest.mark.parametrize("name", ["$\\frac$", "$$</svg><script>"])
def test_a_dollar_in_a_name_begins_no_formula_and_a_bracket_no_element(name):
    def draw(axes):
        axes.plot([0, 1], label=name)
        axes.set_xlabel(name)

    shown = plot(name, "salt", draw)
    assert shown.count("</svg>") == 1 and "<script>" not in shown
    assert name.replace("<", "&lt;").replace(">", "&gt;") in shown
    assert picture(name, draw, (1.0, 1.0)).startswith(b"\x89PNG")
