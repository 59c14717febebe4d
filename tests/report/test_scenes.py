"""The sheet of drawn scenes on a run's page."""

from __future__ import annotations

import base64
import html as escapes
import io
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from infra.home.runs import new_record
from tests.kit.scenes import made_captions, scenes_recipe
from tests.kit.scores import commit
from xclr import schema
from xclr.artifact import Digest
from xclr.images.scenes import draw_png
from xclr.recipe import Recipe
from xclr.report.page import render
from xclr.report.scenes import SHOWN, scenes_of, training_pictures
from xclr.report.sheet import SIDE
from xclr.store import Store

SCORES = Digest("comparison", "0" * 32)
TILE = re.compile(r'<div><img src="data:image/webp;base64,([^"]+)" alt="" title="([^"]+)"><bdi>([^<]+)</bdi></div>')


def page_of(home, *recipes):
    """The page of runs of which nothing is left but a table without scores."""
    empty, store = schema.SCORES.empty_table(), Store(home)
    made = store.find(SCORES) or commit(store, SCORES, (), {"scores.parquet": (empty, schema.SCORES)})
    runs = [new_record(each, []).model_copy(update={"scores": str(made.digest)}) for each in recipes]
    return render(runs, empty, store)


def tiles_of(page):
    return TILE.findall(page[page.index('id="scenes"') : page.index('id="neighbours"')])


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)


def test_the_page_of_a_run_shows_what_is_trained_on(tmp_path):
    recipe = scenes_recipe()
    page = page_of(tmp_path, recipe)
    tiles = tiles_of(page)
    assert len(tiles) == SHOWN == 96
    assert "96 of the 300 training pictures of scenes, 24 pixels a side" in page
    table = pq.read_table(made_captions(tmp_path).path / "captions.parquet").sort_by("row_id")
    trained = table["caption"].filter(np.array(table["split"]) == "train").to_pylist()[:SHOWN]
    assert [escapes.unescape(said) for _, _, said in tiles] == [title for _, title, _ in tiles] == trained
    for place in (0, 95):
        drawn = pixels(draw_png(recipe.data, 180 + place))
        shown = [pixels(base64.b64decode(uri)) for uri, _, _ in tiles]
        assert shown[place].shape == (24, 24, 3)
        assert np.argmin([np.abs(each - drawn).mean() for each in shown]) == place


@pytest.mark.parametrize(
    ("data", "count", "side"), [({"pictures": 5, "captions_each": 3}, 5, 24), ({"size": 100, "held_out": ()}, 96, SIDE)]
)
def test_few_pictures_several_captions_and_large_ones(data, count, side):
    recipe = scenes_recipe(**data)
    (found,) = scenes_of([recipe, recipe])
    assert len(found.tiles) == len(training_pictures(recipe.data)) == count
    first = base64.b64decode(found.tiles[0].uri.partition(",")[2])
    assert pixels(first).shape == (side, side, 3)
    assert any(" · " in tile.caption for tile in found.tiles) == (recipe.data.captions_each > 1)


def test_each_of_several_data_has_a_sheet_and_others_have_none(tmp_path):
    emoji = Recipe.model_validate({"name": "emoji"})
    other = scenes_recipe(bias=0.0, pictures=7)
    page = page_of(tmp_path, scenes_recipe(), emoji, other)
    assert len(tiles_of(page)) == SHOWN + 7 and page.count('<div class="scenes') == 2
    assert "scenes" not in page_of(tmp_path, emoji)
