"""What a network is shown, written beside its weights: as values, and as a torchvision transform."""

from __future__ import annotations

import json
from pathlib import Path

from xclr.images.preparation import Preparation

VALUES, PROGRAM = "preprocessing.json", "preprocessing.py"
TEXT = '''\
"""What a picture becomes for the network: transform(picture) gives float32 [3, {size}, {size}].

It needs torchvision alone and gives the pixels that the network was judged on, but for pictures more than 32 times as
long as wide, which xclr crops before it resizes them.
"""

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode, v2


def flat(picture):
    """Red, green and blue of 8 bits, upright as EXIF says, on grey where the picture is transparent."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in {{"RGB", "L", "CMYK", "YCbCr"}}:
        return picture.convert("RGB")
    if picture.mode.startswith("I"):  # grey of 16 bits
        picture = Image.fromarray((np.asarray(picture, np.float32) / 257).clip(0, 255).astype(np.uint8))
    layers = picture.convert("RGBA")
    paper = Image.new("RGB", layers.size, ({grey}, {grey}, {grey}))
    paper.paste(layers, mask=layers.getchannel("A"))
    return paper


transform = v2.Compose(
    [
        v2.Lambda(flat),
        v2.Resize({edge}, InterpolationMode.{interpolation}),
        v2.CenterCrop({size}),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(mean={mean}, std={std}),
    ]
)
'''


def write_preprocessing(how: Preparation, behind: float, folder: Path) -> tuple[str, str]:
    """Write both files for a network without a border; `behind` in [0, 1] is the grey under transparent parts."""
    values = {
        "size": how.size,
        "resize": how.resize,
        "crop": "center" if how.crop else "squash",
        "interpolation": how.interpolation,
        "mean": how.mean,
        "std": how.std,
        "background": behind,
    }
    program = TEXT.format(
        size=how.size,
        edge=how.resize if how.crop else (how.resize, how.resize),
        grey=round(255 * behind),
        interpolation=how.interpolation.upper(),
        mean=list(how.mean),
        std=list(how.std),
    )
    (folder / VALUES).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    (folder / PROGRAM).write_text(program, encoding="utf-8")
    return VALUES, PROGRAM
