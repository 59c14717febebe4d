"""Words that are written from right to left stand in elements of their own on every page."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.kit.cells import in_every_state
from xclr.report import html
from xclr.report.scenes import Scenes
from xclr.report.sheet import Question, Sheet, Tile
from xclr.report.sweep_page import render_sweep
from xclr.report.tables import Grid, Line, TableCell

RTL = "כלב, (2) שחור"
TILE = Tile("data:,", RTL)
GRID = Grid(("top-1",), (Line(RTL, RTL, (TableCell("1"),)),), "percent", "Scores")
AGAIN: dict[str, Any] = {"command": "xclr compare", "recipes": [], "side": 64}
CONTEXTS: dict[str, dict[str, Any]] = {
    "graph.html.j2": {
        "title": "table", "facts": {"data": RTL}, "plots": [], "effective": {"sizes": [], "lines": []},
        "temperature": 0.1, "near": 0.95, "duplicates": [(0.99, RTL, RTL)], "similar": [(0.9, RTL, RTL)],
        "components": {"number": 1, "alone": 0, "share": 1.0, "groups": [(2, [RTL, "a <dog>"])]},
        "questions": [[(0, RTL, None), (1, RTL, 0.5)]], "thumbnails": {0: "data:,", 1: "data:,"}, "neighbours": 1,
        "truth": None,
    },
    "page.html.j2": {
        "title": "mine", "runs": [{"data": RTL}], "skipped": [], "tables": [("Scores", [GRID])], "paper": [],
        "glossary": {}, "no_scores": "", "colours": {}, "labels": {("xclr", ""): "xclr"}, "loss": [], "shared": [],
        "panels": [], "smaller": False,
        "several_seeds": False, "no_curves": "none", "no_sheet": "", "neighbours": 1,
        "scenes": [Scenes((TILE,), "all of them")],
        "sheet": Sheet((Question(TILE, ((("xclr", ""), (TILE,)),)),), "about"),
    },
    "study.html.j2": {
        "name": "mine", "question": RTL, "facts": {"data": RTL}, "reading": [], "grids": [GRID], "plots": [],
        "source": "",
    },
}  # fmt: skip
CONTEXTS["page.html.j2"]["colours"] = {("xclr", ""): "#000"}


class Foreign(HTMLParser):
    """Collects words from right to left: those that stand in <bdi>, and those that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.alone: list[str] = []
        self.among_others: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open.pop() != tag:
            pass  # elements that need no end, such as <img>

    def handle_data(self, data: str) -> None:
        if any("\u0590" <= letter <= "\u05ff" for letter in data):
            (self.alone if "bdi" in self.open else self.among_others).append(data)


def rendered(name: str) -> str:
    if name == "sweep.html.j2":
        return render_sweep(in_every_state(f"{RTL} is not finite"))
    return html.environment().get_template(name).render(CONTEXTS[name] | AGAIN)


@pytest.mark.parametrize("name", sorted(path.name for path in Path(html.__file__).parent.glob("*.html.j2")))
def test_words_from_right_to_left_do_not_turn_what_stands_around_them(name):
    found = Foreign()
    found.feed(rendered(name))
    assert found.among_others == [] and found.alone


def test_what_is_isolated_is_escaped():
    assert html.isolated("<b>") == "<bdi>&lt;b&gt;</bdi>"
    found = html.environment().get_template("graph.html.j2").render(CONTEXTS["graph.html.j2"] | AGAIN)
    assert f"<bdi>{RTL}</bdi> · <bdi>a &lt;dog&gt;</bdi>" in found
