"""Drawn pictures: the same anywhere, each showing what the table says of it."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.kit.scenes import made_pictures, scenes_recipe
from xclr.captions.scenes import PIXELS, Scene, generator, scene
from xclr.images import PictureFiles
from xclr.images.scenes import GROUND, RGB, draw, draw_png
from xclr.recipe.scenes import FACTORS, MIN_SIZE

GOLDEN = Path(__file__).parent / "scenes.png"
ACROSS, SIDE, SHOWN = 8, 48, 32
DATA = scenes_recipe(size=SIDE).data


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def sheet():
    """The canary's pictures, one after the other."""
    drawn = [pixels(draw_png(DATA, number)) for number in range(SHOWN)]
    return np.concatenate([np.concatenate(drawn[row : row + ACROSS], 1) for row in range(0, SHOWN, ACROSS)], 0)


def shown(**factors):
    """A picture of a scene of these factors, large and upright."""
    numbers = {name: FACTORS[name].index(value) for name, value in factors.items()}
    return draw(Scene(**numbers, radius=0.4, turn=0.0), 64, np.random.default_rng(0)).astype(int)


def test_the_pixels_are_those_of_the_first_edition():
    """Where they change on purpose, count scenes.EDITION up, then: python -m tests.images.test_scenes."""
    found, golden = sheet().astype(int), np.asarray(Image.open(GOLDEN)).astype(int)
    assert found.shape == golden.shape
    assert (np.abs(found - golden) > 1).mean() < 1e-3  # machines round some sines otherwise


def test_a_picture_depends_on_its_row_alone(tmp_path):
    images = made_pictures(tmp_path, shard=37)
    table = pq.read_table(images.path / "images.parquet")
    assert set(table["status"].to_pylist()) == {"ok"}
    assert set(table["width"].to_pylist()) == set(table["height"].to_pylist()) == {24}
    rows = np.array([0, 36, 37, 111, 479])
    files = PictureFiles.open(images.path, rows)
    data = scenes_recipe().data
    for place, row in enumerate(rows.tolist()):
        assert files.encoded(place) == draw_png(data, row)


def test_captions_of_one_picture_show_it(tmp_path):
    images = made_pictures(tmp_path, captions_each=3, pictures=20, tests=2)
    files = PictureFiles.open(images.path, np.arange(9))
    assert files.encoded(0) == files.encoded(2) != files.encoded(3) == files.encoded(5)


def test_scenes_differ():
    drawn = [draw_png(DATA, number) for number in range(200)]
    assert len(set(drawn)) == 200


@pytest.mark.parametrize("colour", FACTORS["colour"])
def test_an_object_has_its_colour_in_the_middle(colour):
    found = shown(kind="circle", colour=colour, texture="plain", place="gravel")[28:36, 28:36].mean((0, 1))
    nearest = min(RGB, key=lambda name: np.square(found - RGB[name]).sum())
    assert nearest == colour


@pytest.mark.parametrize("place", FACTORS["place"])
def test_a_place_has_its_colour_along_the_edges(place):
    found = shown(kind="circle", colour="red", texture="plain", place=place)
    edges = np.concatenate([found[:6], found[-6:]]).reshape(-1, 3)
    assert np.abs(np.median(edges, 0) - GROUND[place]).max() < 60


def test_kinds_are_told_apart_by_their_outlines():
    """Every two kinds differ on at least a twentieth of the picture, at the smallest size too."""
    for size in (64, MIN_SIZE):
        masks = {}
        for number, kind in enumerate(FACTORS["kind"]):
            made = Scene(number, FACTORS["colour"].index("white"), 0, FACTORS["place"].index("night sky"), 0.4, 0.0)
            masks[kind] = draw(made, size, np.random.default_rng(3)).mean(2) > 150
        for kind, mask in masks.items():
            for other, its in masks.items():
                assert kind == other or (mask ^ its).mean() > 0.05, (kind, other, size)


def test_textures_are_told_apart_at_the_smallest_size():
    """Marks darken an object's middle in shares of their own, and are coarser than a pixel."""
    dark, runs = {}, {}
    for name in FACTORS["texture"]:
        number = FACTORS["texture"].index(name)
        made = [draw(Scene(1, 0, number, 3, 0.4, 0.0), MIN_SIZE, np.random.default_rng(seed)) for seed in range(40)]
        middles = np.stack([each[8:16, 8:16].astype(int).sum(2) for each in made])
        marked = middles < (middles.max((1, 2), keepdims=True) + middles.min((1, 2), keepdims=True)) / 2
        contrast = middles.max((1, 2)) - middles.min((1, 2))
        dark[name] = np.where(contrast > 60, marked.mean((1, 2)), 0).mean()
        runs[name] = (marked[:, :, 1:] != marked[:, :, :-1]).mean()
    assert dark["plain"] == 0
    assert 0.15 < dark["dotted"] < 0.4 < dark["striped"] < 0.6 and 0.4 < dark["checkered"] < 0.6
    assert runs["checkered"] > runs["striped"]


def test_generators_of_captions_and_pixels_do_not_disturb_each_other():
    first = generator(0, PIXELS, 5).random(3)
    scene(DATA, 5)
    assert (generator(0, PIXELS, 5).random(3) == first).all()


if __name__ == "__main__":
    Image.fromarray(sheet()).save(GOLDEN)
