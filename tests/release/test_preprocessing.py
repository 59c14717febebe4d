"""preprocessing.py gives what this project's networks are shown, preprocessing.json the same as values."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.kit.pictures import encode, photo, see_through, turned
from xclr.evaluation.networks.pictures import normalised, prepare
from xclr.images.picture import opened
from xclr.recipe import TrainConfig
from xclr.release.preprocessing import write_preprocessing
from xclr.training.views import PLAIN, preparation_of

PICTURES = {
    "photograph": photo(70, 45),
    "tall": photo(31, 200),
    "turned": turned(),
    "see-through": see_through(),
    "half see-through": encode(Image.radial_gradient("L").resize((50, 40)).convert("LA")),
    "grey": encode(Image.radial_gradient("L")),
    "of a palette": encode(Image.radial_gradient("L").convert("P")),
    "of 16 bits": encode(Image.fromarray(26 * np.arange(2500, dtype=np.uint16).reshape(50, 50))),
    "for print": encode(Image.radial_gradient("L").convert("CMYK"), "JPEG"),
}
SHOWN = {
    "stickers": TrainConfig(image_size=32),
    "photographs": TrainConfig(image_size=40, views="simclr", normalisation="imagenet"),
    "as they are": TrainConfig(image_size=30, views="autoaugment", normalisation="none"),
}


@pytest.mark.parametrize("shown", SHOWN)
def test_the_program_gives_the_tensor_of_this_project(shown, tmp_path):
    how, scope = preparation_of(SHOWN[shown]), {}
    write_preprocessing(how, PLAIN, tmp_path)
    exec((tmp_path / "preprocessing.py").read_text(), scope)
    for name, encoded in PICTURES.items():
        with opened(encoded) as picture:
            found = scope["transform"](picture)
        expected = normalised(prepare(encoded, how)[None], how)[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5, msg=name)


def test_the_values_are_those_of_the_preparation(tmp_path):
    write_preprocessing(preparation_of(SHOWN["photographs"]), PLAIN, tmp_path)
    assert json.loads((tmp_path / "preprocessing.json").read_text()) == {
        "size": 40,
        "resize": 46,
        "crop": "center",
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "background": 0.5,
    }
