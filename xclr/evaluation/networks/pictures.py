"""How a picture becomes the input of a network that is judged: decoded, resized, cropped, normalised."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from xclr.errors import DataError
from xclr.images.picture import opened, rgb, upright
from xclr.images.preparation import Preparation
from xclr.recipe import Framing
from xclr.training.views import PLAIN

METHODS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
LONG = 32  # times as long as wide: such pictures are cropped before they are resized, which changes hardly a pixel


def framed_as(how: Preparation, framing: Framing) -> Preparation:
    """How a network is shown the pictures of a data set whose own tool frames them so.

    standard: as the network is shown any. whole: all of the picture, resized once where it has another size than
    `how.size`. template: the shortest edge is resized to `how.size`, without a margin.
    """
    if framing == "standard":
        return how
    return replace(how, resize=how.size, crop=how.crop and framing == "template")


def prepare(encoded: bytes, how: Preparation) -> Tensor:
    """One encoded picture as uint8 [3, size, size], upright, transparent parts on grey; raises what Pillow raises.

    Of an RGB picture that are the pixels of torchvision's Resize and CenterCrop.
    """
    with opened(encoded) as picture:
        return pixels(picture, how)


def pixels(picture: Image.Image, how: Preparation) -> Tensor:
    """One picture as `prepare` gives it."""
    square = framed(rgb(upright(picture), PLAIN), how)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def framed(picture: Image.Image, how: Preparation) -> Image.Image:
    """The part of a picture that a network sees, size x size; raises ValueError when the border is all there is."""
    if how.border:
        picture = _without_border(picture, how.border)
    method, (width, height) = METHODS[how.interpolation], picture.size
    if how.crop and max(width, height) > LONG * min(width, height):
        picture = _middle(picture)
        width, height = picture.size
    long = int(how.resize * max(width, height) / min(width, height)) if how.crop else how.resize
    size = (how.resize, long) if width <= height else (long, how.resize)
    picture = picture.resize(size, method)
    left, top = (round((edge - how.size) / 2) for edge in size)
    return picture.crop((left, top, left + how.size, top + how.size))


def _middle(picture: Image.Image) -> Image.Image:
    """The middle of a long picture, LONG times as long as wide: the crop lies within it, far from its ends."""
    width, height = picture.size
    long = LONG * min(width, height)
    left, top = max(0, (width - long) // 2), max(0, (height - long) // 2)
    return picture.crop((left, top, width - left, height - top))


def _without_border(picture: Image.Image, border: int) -> Image.Image:
    width, height = picture.size
    if min(width, height) <= 2 * border:
        raise ValueError(f"{width} x {height} pixels are no more than a border of {border}")
    return picture.crop((border, border, width - border, height - border))


def normalised(batch: Tensor, how: Preparation) -> Tensor:
    """uint8 [b, 3, s, s] to what the network takes: float32, on the same device."""
    mean, std = (torch.tensor(each, device=batch.device).view(3, 1, 1) for each in (how.mean, how.std))
    return batch.to(torch.float32).div_(255).sub_(mean).div_(std)


class Shown(NamedTuple):
    """Pictures 0 to number - 1: how each is read and named.

    `lost` is called for one whose bytes are there and no picture, and plain grey stands in its place; without it
    that is an error.
    """

    number: int
    read: Callable[[int], bytes]
    name: Callable[[int], str]
    lost: Callable[[int], object] | None = None


def batches(shown: Shown, how: Preparation, *, size: int, threads: int) -> Iterator[Tensor]:
    """The pictures in order, uint8 [b, 3, s, s] with b <= size; several threads decode up to 2 * size ahead.

    One is the caller's own: handing a picture over took as long again as decoding one of 48 pixels. Raises DataError
    with a picture's name when it cannot be read.
    """

    def made(index: int) -> Tensor:
        encoded: bytes | None = None
        try:
            encoded = shown.read(index)
            return prepare(encoded, how)
        except Exception as error:
            if shown.lost is not None and encoded is not None:
                shown.lost(index)
                return torch.full((3, how.size, how.size), round(255 * PLAIN), dtype=torch.uint8)
            raise DataError(
                f"{shown.name(index)} cannot be read: {type(error).__name__}: {error}",
                "put the file that was published in its place",
            ) from error

    if threads == 1:
        yield from _stacked(map(made, range(shown.number)), size)
        return
    pool, indices = ThreadPoolExecutor(threads), iter(range(shown.number))
    waiting = deque(pool.submit(made, index) for index in islice(indices, 2 * size))

    def decoded() -> Iterator[Tensor]:
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(made, index) for index in islice(indices, 1))

    try:
        yield from _stacked(decoded(), size)
    finally:
        pool.shutdown(cancel_futures=True)


def _stacked(pictures: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    while batch := list(islice(pictures, size)):
        yield torch.stack(batch)
