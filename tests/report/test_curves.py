"""Training curves: read from spools, thinned, drawn as SVG that can stand in a page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from xclr.report.curves import EPOCH, METRICS, POINTS, Plot, Trace, draw, metric_of, read_metrics
from xclr.report.html import INK
from xclr.training.meter import RANK, WORKERS
from xclr.training.spool import SPOOL, Spool, read_spool

LINE = Trace((0.5, 1.0, 1.5), (3.0, 2.0, 1.0), "#3b82c4")


def spool(folder, steps):
    log = Spool(folder / SPOOL, 0)
    for step in range(1, steps + 1):
        log(step, {"train/loss": 1 / step, "train/epoch": step / 10, "system/memory": 1.0})


def test_metrics_are_read_over_epochs(tmp_path):
    spool(tmp_path, 4)
    assert read_metrics(tmp_path) == {"train/loss": ((0.1, 0.2, 0.3, 0.4), (1.0, 1 / 2, 1 / 3, 1 / 4))}


def test_a_long_training_is_thinned_to_its_ends_and_points_between(tmp_path):
    spool(tmp_path, POINTS + 50)
    epochs, values = read_metrics(tmp_path)["train/loss"]
    assert len(epochs) == len(values) == POINTS
    assert (epochs[0], epochs[-1]) == (0.1, (POINTS + 50) / 10)


def test_a_training_that_logged_nothing(tmp_path):
    assert read_metrics(tmp_path) == {}


@pytest.mark.slow
def test_every_metric_that_a_training_logs_has_a_unit(own_home):
    spools = own_home.glob(f"artifacts/pretrain/*/{SPOOL}")
    logged = {name for path in spools for entry in read_spool(path) for name in entry.metrics} - {EPOCH}
    assert {name for name in logged if name.startswith("train/")} <= set(METRICS) and "train/alignment" in logged
    assert {f"train/{each}" for each in (*WORKERS, *RANK)} <= set(METRICS)
    assert metric_of("train/not_ours") == ("not ours", "no unit known")


def test_an_svg_has_a_name_the_pages_colour_and_nothing_from_outside():
    svg = draw(Plot('loss of <"xclr">', "loss", (LINE,)))
    root = ElementTree.fromstring(str(svg))
    assert root[0].text == root.get("aria-label") == 'loss of <"xclr">'
    assert root.get("width") is None
    assert "currentColor" in svg
    assert INK not in svg
    assert "#3b82c4" in svg
    assert "metadata" not in svg
    words = "".join(root.itertext())
    assert "epoch" in words
    assert "loss" in words


def test_plots_on_one_page_share_no_id():
    first, second = (draw(Plot(title, "loss", (LINE,))) for title in ("clip", "xclr"))
    ids = [re.findall(r' id="([^"]+)"', svg) for svg in (first, second)]
    assert ids[0], "clip paths and marks are referred to by id"
    assert not set(ids[0]) & set(ids[1])
    for svg, own in zip((first, second), ids, strict=True):
        assert set(re.findall(r'(?:url\(#|href="#)([\w-]+)', svg)) == set(own)


def test_one_point_is_seen():
    dot = draw(Plot("loss", "loss", (Trace((1.0,), (2.0,), "#c2508f"),)))
    line = draw(Plot("loss", "loss", (Trace((1.0, 2.0), (2.0, 2.0), "#c2508f"),)))
    assert dot.count("#c2508f") > line.count("#c2508f")
