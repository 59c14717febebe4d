"""The comparison page over small real runs: what it holds, and what it says when something is gone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from infra.home.runs import read_runs
from infra.home.scores import find_runs, read_scores
from tests.kit.finished import finish, own_recipe
from xclr.errors import StoreError
from xclr.recipe import load_recipe, parse_recipe, recipe_yaml
from xclr.report.page import LONGEST_NAME, write_html, write_page
from xclr.report.trainings import trainings_of
from xclr.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture
def home(own_home, tmp_path):
    """A copy to take things away from."""
    return shutil.copytree(own_home, tmp_path / "home")


@pytest.fixture(scope="module")
def html(own_home):
    """Its page."""
    return page_of(own_home)


def page_of(home, *wanted, against=None):
    return write_page(home, find_runs(home, wanted), wanted, read_scores(home, wanted), against, None).read_text()


def test_the_page_holds_what_was_compared_scores_curves_and_neighbours(html, home, own_home):
    assert (own_home / "pages" / "compare-own.html").readlink() == Path("compare-own-1.html"), "each run's page is kept"
    assert (home / "pages" / "compare-own.html").read_text() == html
    for word in ("own-1", "table own.parquet", "0, 1", "resnet-mini, width 4", "pictures top-1", "Distance to clip"):
        assert word in html
    assert "paired" not in html, "two seeds have no interval"
    assert "no unit known" not in html
    assert "Beside the paper" not in html
    assert len(re.findall("<figure class=.question", html)) == len(re.findall("<figcaption><img", html)) > 1
    assert html.count("data:image/webp") == html.count("<img ")
    losses = re.findall(r"<figcaption>([^<]+)</figcaption><svg", html.split("Training</h2>")[1])
    assert losses[:2] == ["clip (pairs)", "xclr (captions)"]
    assert page_of(home) == html, "the same run gives the same page"


def test_distances_are_to_the_method_asked_for(home):
    assert "Distance to xclr" in page_of(home, against="xclr")


def test_neighbours_of_the_same_class_are_told_from_others(html):
    for alt, title in re.findall(r'alt="([^"]+)" title="([^"]+) · cosine -?[01]\.\d\d"', html):
        assert alt == title
    asked = re.findall(r'<figcaption><img [^>]+ alt=""><bdi>a drawing of (\w+)', html)
    answers = [
        re.findall(r'alt="a drawing of (\w+) \d+ \((same|another) class\)', part) for part in html.split("<figure")
    ]
    answers = [each for each in answers if each]
    assert len(asked) == len(answers) > 1
    for colour, found in zip(asked, answers, strict=True):
        assert {same == "same" for other, same in found if other == colour} <= {True}
        assert {same == "same" for other, same in found if other != colour} <= {False}


def test_features_that_are_gone_cost_the_sheet_alone(home):
    shutil.rmtree(home / "artifacts" / "features")
    html = page_of(home)
    assert "the features of these runs are not in the store" in html
    assert "<img" not in html
    assert "pictures top-1" in html
    assert html.count("<svg") > 2


def test_features_of_one_method_that_are_gone_are_named(home):
    store = Store(home)
    training = next(
        each
        for each in trainings_of([recipe for each in read_runs(home) for recipe in each.recipes], store)
        if each.method[0] == "clip"
    )
    store.discard(training.features)
    html = page_of(home)
    assert "Without clip pairs: no features" in html
    assert html.count("data:image/webp") > 10


def test_pictures_that_are_gone_cost_the_sheet_alone(home):
    shutil.rmtree(home / "artifacts" / "images")
    html = page_of(home)
    assert "the images of these runs are not in the store" in html
    assert "pictures top-1" in html


def test_a_table_that_moved_leaves_the_scores(tmp_path):
    finish(tmp_path / "home", own_recipe(tmp_path, "a drawing of", objectives=["clip"], train={"epochs": 1} | SMALL))
    (tmp_path / "own.parquet").unlink()
    html = page_of(tmp_path / "home")
    assert "no table at" in html
    assert "pictures top-1" in html
    assert html.count("<svg") == 1, "the scores alone are plotted"


SMALL = {"width": 4, "image_size": 16, "batch_size": 16, "projector_hidden": 16, "projector_out": 8, "log_every": 1}


def test_pictures_without_labels_have_curves_and_a_sheet(tmp_path):
    recipe = own_recipe(tmp_path, "plain", train={"epochs": 1} | SMALL)
    finish(tmp_path / "home", recipe.model_copy(update={"data": recipe.data.model_copy(update={"label_column": None})}))
    html = page_of(tmp_path / "home")
    assert "No suite judged this run" in html
    assert "suite linear is left out" in html
    assert "<table" not in html
    assert html.count("data:image/webp") > 10
    assert "same class" not in html


def test_runs_over_the_same_pictures_share_a_page(tmp_path):
    for name in ("clip", "xclr"):
        recipe = own_recipe(
            tmp_path, "a drawing of", name=f"own-{name}", objectives=[name], train={"epochs": 1} | SMALL
        )
        finish(tmp_path / "home", recipe)
    html = page_of(tmp_path / "home", "own-clip", "own-xclr")
    assert (tmp_path / "home" / "pages" / "compare-own-clip-own-xclr.html").exists()
    assert "Comparison: own-clip and own-xclr" in html
    answers = re.findall(r'class="answer"><span><i [^>]+></i>(\w+)', html)
    assert answers[:4] == ["random", "clip", "xclr", "random"]
    assert "xclr compare own-clip-1 own-xclr-1" in html
    assert "(paired-bootstrap); * McNemar p" in html, "the answers of both runs are paired"


def test_a_place_that_cannot_be_written(home):
    with pytest.raises(StoreError, match=r"cannot write /dev/null/page\.html") as error:
        write_page(home, find_runs(home, []), [], read_scores(home, []), None, Path("/dev/null/page.html"))
    assert "--out" in error.value.remedy


@pytest.mark.parametrize("place", ["/dev/null", "there"])
def test_a_device_or_link_is_written_to_and_not_replaced(place, tmp_path):
    (tmp_path / "there").touch()
    link = tmp_path / "link"
    link.symlink_to(place)
    assert write_html(tmp_path / "own", "own", "page", link) == link
    assert (link.is_symlink(), (tmp_path / "there").read_text()) == (True, "page" if place == "there" else "")


def test_a_folder_gets_the_page_under_its_name(home, tmp_path):
    path = write_page(home, find_runs(home, []), [], read_scores(home, []), None, tmp_path)
    assert path == tmp_path / "compare-own.html"
    assert path.exists()


def test_many_names_make_a_short_file_name(home):
    names = ["own", "own-1"] * 40
    path = write_page(home, find_runs(home, names), names, read_scores(home, names), None, None)
    assert len(path.name) < LONGEST_NAME + 30


@pytest.mark.parametrize("name", ["emoji", "smoke"])
def test_the_recipe_on_the_page_is_the_recipe_that_ran(name):
    sets = ["seeds=[0,1]", "train.epochs=2", "objective.target_temperature=0.2", "evaluate.suites=[linear]"]
    recipe = load_recipe(name, sets)
    assert parse_recipe(yaml.safe_load(recipe_yaml(recipe)), "page") == recipe


def test_the_recipe_on_the_page_expects_its_table_beside_it(tmp_path):
    recipe = own_recipe(tmp_path, "a drawing of")
    text = recipe_yaml(recipe)
    assert str(tmp_path) not in text
    assert parse_recipe(yaml.safe_load(text), "page", base=tmp_path) == recipe
