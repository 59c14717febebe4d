"""Final scores as dots with intervals: what stands in each panel, in which order, and what its name says."""

from __future__ import annotations

from xml.etree import ElementTree

from tests.kit.scores import BOTH, GAP, score, table
from xclr import schema
from xclr.report.score_plots import draw_panel, panels_of
from xclr.report.tables import grids_of

LABELS = {("clip", "pairs"): "clip", ("xclr", "captions"): "<xclr>", ("random", "none"): "random"}
COLOURS = dict(zip(LABELS, ("#111111", "#222222", "#333333"), strict=True))


def test_panels_are_the_columns_of_the_tables_and_their_rows_those_of_a_table():
    panels = list(panels_of(BOTH))
    assert [each.title for each in panels] == [head for grid in grids_of(BOTH) for head in grid.heads]
    assert [each.unit for each in panels] == ["%", "points", "%", "%"]
    assert [list(each.scores) for each in panels][2:] == [
        [("random", "none"), ("clip", "pairs"), ("xclr", "captions")], [("clip", "pairs"), ("xclr", "captions")],
    ]  # fmt: skip
    assert list(panels_of(schema.SCORES.empty_table())) == []


def test_a_panel_has_a_dot_a_line_and_a_label_for_each_method_and_says_its_numbers():
    alone = score("xclr", "captions", 0.08, where=GAP) | {"ci95": None, "ci_kind": "none"}
    (panel,) = panels_of(table(score("clip", "pairs", 0.05, where=GAP), alone))
    svg = draw_panel(panel, LABELS, COLOURS)
    root = ElementTree.fromstring(str(svg))
    assert root.get("aria-label") == "bg gap†, points: clip 5.0 ± 2.0; <xclr> 8.0"
    words = [each.text for each in root.iter("text")]
    assert words[-2:] == ["clip", "<xclr>"] and "points" in words
    assert "#111111" in svg and "#222222" in svg
