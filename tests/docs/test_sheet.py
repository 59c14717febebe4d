"""The picture of drawn scenes in docs."""

from __future__ import annotations

import cv2
import numpy as np

from docs.sheet import DATA, PATH, sheet
from xclr.images.scenes import draw_png
from xclr.report.scenes import training_pictures


def test_the_picture_is_what_its_script_draws():
    made = sheet(DATA)
    assert made.shape == (6 * 66 - 2, 16 * 66 - 2, 3)
    there = cv2.imread(str(PATH))
    assert np.abs(there.astype(int) - made).mean() < 1, "python -m docs.sheet"
    assert PATH.stat().st_size < 600_000


def test_pictures_stand_in_rows_with_white_between():
    data = DATA.model_copy(update={"pictures": 18})
    made = sheet(data)
    assert made.shape == (2 * 66 - 2, 16 * 66 - 2, 3)
    last = cv2.imdecode(np.frombuffer(draw_png(data, training_pictures(data)[17]), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(made[66:, 66:130], last)
    assert (made[64:66] == 255).all() and (made[66:, 132:] == 255).all()
