"""The page of a sweep, and its pictures: what they hold, that names are text, that the sweep can be had again."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.kit.cells import IMAGENET, RECIPE, SWEEP, TAU, by_tau, cell, in_every_state, line, swept_of
from tests.kit.finished import own_recipe
from xclr.errors import StoreError
from xclr.recipe import load_recipe
from xclr.report.sweep_page import pictures, render_sweep, reproduction, write_sweep_page
from xclr.sweep.load import load_sweep, sweep_names
from xclr.sweep.spec import Draw, Sweep

HOSTILE = '<script>alert("x")</script>'
SWEPT = in_every_state(f"{HOSTILE} is not finite\nTraceback")


def test_the_page_holds_what_was_swept_every_cells_state_the_best_and_what_failed():
    html = render_sweep(SWEPT)
    for word in (
        "Sweep: warm", TAU, "0.1, 0.2, 0.5", "every combination", "resnet-mini, width 4", "simclr, xclr",
        "best by ImageNet: xclr target_temperature=0.1: 60.0 ± 0.0 (95%, t over 3 seeds)",
        "6 done", "1 failed", "1 running", "1 waiting", "1 to come", "xclr retry warm", "xclr compare --sweep warm",
    ):  # fmt: skip
        assert word in html
    cells = re.findall(r'<i class="dot [\w-]+"></i>(\w[\w ]*?) <span class="quiet">([^<]*)</span>', html)
    assert cells == [
        *[("done", "30.0")] * 3, *[("done", "60.0")] * 3, ("failed", "pretrain"), ("running", "suite imagenet"),
        ("waiting", "pretrain"), ("to come", "pretrain"),
    ]  # fmt: skip
    assert "0 of 3, 1 waiting, 1 running, 1 failed" in html
    assert "4711_3" in html
    assert render_sweep(SWEPT) == html, "the same sweep gives the same page"


def test_every_plot_is_there_with_a_name():
    html = render_sweep(SWEPT)
    names = re.findall(r'role="img" aria-label="([^"]+)"', html)
    assert names == [
        "target_temperature: ImageNet against target temperature, no unit",
        "target_temperature: k-NN against target temperature, no unit",
        "target_temperature: bg gap against target temperature, no unit",
        "few-shot: few labels against training pictures with a label, %",
        "every setting over method; target temperature, no unit; ImageNet, %",
    ]
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_a_name_is_text_and_nothing_comes_from_outside():
    html = render_sweep(SWEPT)
    assert "&lt;script&gt;alert(" in html
    assert "<script" not in html
    assert "Traceback" not in html
    assert not re.search(r'(?:href|src)="(?!#|data:)', html)
    assert "<a " not in html


def test_a_sweep_that_nobody_judged_yet_has_a_page():
    html = render_sweep(swept_of(SWEPT.lines, lambda _: {}))
    assert "no suite has judged a cell yet" in html
    assert "<svg" not in html
    assert "1 to come" in html
    assert pictures(swept_of(SWEPT.lines, lambda _: {})) == {}


def test_a_recipes_facts_that_an_axis_changes_are_not_told():
    sweep = Sweep(name="s", recipe=RECIPE, grid={"train.epochs": (7, 77)})
    swept = swept_of([line(cell(epochs=epochs)) for epochs in (7, 77)], lambda _: {IMAGENET: 0.5}, sweep)
    html = render_sweep(swept)
    assert "<dt>epochs</dt><dd><bdi>swept</bdi></dd>" in html
    assert "<dt>data</dt><dd><bdi>emoji, first 400 rows</bdi></dd>" in html


def test_pictures_are_png_files():
    made = pictures(SWEPT)
    assert list(made) == ["curve-target_temperature.png", "few-shot.png", "parallel-coordinates.png"]
    for data in made.values():
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 400
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20, "something is drawn"


def test_the_page_lies_where_it_is_wanted(tmp_path):
    swept = by_tau({0.1: [0.5], 0.2: [0.4]})
    pages = tmp_path / "home" / "pages"
    assert write_sweep_page(tmp_path / "home", swept, None) == pages / f"sweep-{swept.record.run}.html"
    assert (pages / "sweep-warm.html").readlink() == Path(f"sweep-{swept.record.run}.html")
    assert write_sweep_page(tmp_path / "home", swept, tmp_path) == tmp_path / "sweep-warm.html"
    assert write_sweep_page(tmp_path / "home", swept, tmp_path / "own.html").read_text() == render_sweep(swept)
    with pytest.raises(StoreError, match=r"cannot write /dev/null/page\.html"):
        write_sweep_page(tmp_path / "home", swept, Path("/dev/null/page.html"))


@pytest.mark.parametrize("name", sweep_names())
def test_the_projects_own_sweeps_need_no_file(name):
    assert reproduction(load_sweep(name, {})) == (f"xclr sweep {name}", [])


SWEEPS = [
    {"name": "warm", "grid": {TAU: (0.1, 0.2)}, "lists": {"train.width": (4, 8), "train.epochs": (1, 2)}},
    {"name": "smoke", "grid": {"graph.source": ("captions", "class")}, "parallel": 3, "max_gpu_hours": 4.5},
    {"name": "drawn", "random": {"train.learning_rate": Draw(low=0.01, high=0.1, log=True), "graph.k": (4, 8)}},
]


@pytest.mark.parametrize("given", SWEEPS, ids=lambda given: given["name"])
@pytest.mark.parametrize("own", [True, False], ids=["own recipe", "the project's recipe"])
def test_the_files_on_the_page_are_the_sweep_that_ran(given, own, tmp_path):

    recipe = own_recipe(tmp_path, "a drawing of", name="smoke") if own else load_recipe("smoke", ["seeds=[0,1]"])
    sweep = Sweep(recipe=recipe, **given)
    command, files = reproduction(sweep)
    assert command == f"xclr sweep {sweep.name}.yaml"
    assert len(files) == 1 + own
    for name, text in files:
        assert str(tmp_path) not in text
        (tmp_path / name).write_text(text)
    assert load_sweep(str(tmp_path / f"{sweep.name}.yaml"), {}) == sweep


def test_a_hostile_name_cannot_be_a_sweeps():
    with pytest.raises(ValueError, match="pattern"):
        Sweep(name="../up", recipe=RECIPE, grid=SWEEP.grid)
