"""Makes docs/images/scenes.png: `python -m docs.sheet`, the first scenes that are trained on, side by side."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from xclr.images.scenes import draw_png
from xclr.recipe import DataConfig
from xclr.report.scenes import training_pictures

PATH = Path(__file__).parent / "images" / "scenes.png"
DATA = DataConfig(source="scenes", size=64)
COLUMNS, GAP = 16, 2  # pictures of a row, pixels between two
SMALLEST = (cv2.IMWRITE_PNG_COMPRESSION, 9, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT)


def main() -> None:
    """Write the sheet."""
    cv2.imwrite(str(PATH), sheet(DATA), SMALLEST)
    print(PATH)


def sheet(data: DataConfig) -> NDArray[np.uint8]:
    """The first training pictures of drawn data in rows of COLUMNS, white between them: [h, w, 3], blue first."""
    pictures, step = training_pictures(data), data.size + GAP
    rows = -(-len(pictures) // COLUMNS)
    made = np.full((rows * step - GAP, COLUMNS * step - GAP, 3), 255, dtype=np.uint8)
    for place, picture in enumerate(pictures):
        top, left = (number * step for number in divmod(place, COLUMNS))
        png = np.frombuffer(draw_png(data, picture), dtype=np.uint8)
        made[top : top + data.size, left : left + data.size] = cv2.imdecode(png, cv2.IMREAD_COLOR)
    return made


if __name__ == "__main__":
    main()
