"""Two views of a photograph: crop, flip and AutoAugment on the picture that was decoded, colour and blur on the batch.

Each function takes its random numbers as uniform ones, so that they may depend on (seed, epoch, view, row) alone; with
these the distributions are those of torchvision's RandomResizedCrop, ColorJitter, RandomGrayscale, GaussianBlur and
AutoAugment. Source: arXiv 2002.05709, appendix A; arXiv 1805.09501.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

JITTER = (0.8, 0.8, 0.8, 0.2)  # brightness, contrast, saturation, hue (share of the circle)
JITTER_CHANCE, GREY_CHANCE, BLUR_CHANCE = 0.8, 0.2, 0.5
SIGMA = (0.1, 2.0)  # of the blur, pixels
RATIO = (3 / 4, 4 / 3)  # of a crop's sides
ATTEMPTS = 10  # at a crop that fits
GREY = (0.2989, 0.587, 0.114)
CROP_NUMBERS, COLOUR_NUMBERS, POLICY_NUMBERS = 4 * ATTEMPTS + 1, 9, 5
NUMBERS = CROP_NUMBERS + COLOUR_NUMBERS + POLICY_NUMBERS
ORDERS = torch.tensor(list(itertools.permutations(range(4))))


class Crop(NamedTuple):
    """A part of a picture, pixels."""

    left: int
    top: int
    width: int
    height: int


def crop(size: tuple[int, int], u: Tensor, min_area: float) -> Crop:
    """A random part of a picture (width, height) of a random aspect ratio, as RandomResizedCrop picks it; u [40]."""
    width, height = size
    for area, ratio, across, down in u[: 4 * ATTEMPTS].view(ATTEMPTS, 4).tolist():
        pixels = width * height * (min_area + (1 - min_area) * area)
        aspect = math.exp(math.log(RATIO[0]) + ratio * (math.log(RATIO[1]) - math.log(RATIO[0])))
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Crop(int(across * (width - w + 1)), int(down * (height - h + 1)), w, h)
    w = min(width, round(height * RATIO[1]))
    h = min(height, round(width / RATIO[0]))
    return Crop((width - w) // 2, (height - h) // 2, w, h)


def cut(picture: Image.Image, part: Crop, scale: tuple[float, float], u: Tensor, side: int) -> Image.Image:
    """The part of a picture, scaled by `scale` since the part was picked, resized and in half of cases mirrored.

    The edges of a part of a picture that was scaled lie between its pixels.
    """
    left, top = part.left * scale[0], part.top * scale[1]
    right, bottom = left + part.width * scale[0], top + part.height * scale[1]
    x, y = math.floor(left), math.floor(top)
    whole = picture.crop((x, y, min(math.ceil(right), picture.width), min(math.ceil(bottom), picture.height)))
    box = (left - x, top - y, min(right - x, whole.width), min(bottom - y, whole.height))
    view = whole.resize((side, side), Image.Resampling.BILINEAR, box=box)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if u[4 * ATTEMPTS] < 0.5 else view


def auto_augment(picture: Image.Image, u: Tensor) -> Image.Image:
    """One of the policies that AutoAugment found for ImageNet; u [5]: which, whether its two steps, and their signs."""
    policy = _auto_augment()
    policy.u = u
    result: Image.Image = policy(picture)
    return result


@cache
def _auto_augment() -> Any:  # noqa: ANN401
    from torchvision.transforms import AutoAugment

    class Keyed(AutoAugment):  # type: ignore[misc]
        """torchvision's, with random numbers that were drawn before."""

        u: Tensor

        def get_params(self, transform_num: int) -> tuple[int, Tensor, Tensor]:
            """Policy, chances of its two steps, and signs of their sizes."""
            return int(self.u[0] * transform_num), self.u[1:3], (self.u[3:5] < 0.5).long()

    return Keyed()


def recolour(pictures: Tensor, u: Tensor) -> Tensor:
    """SimCLR's colour jitter, grey and blur: float [b, 3, s, s] in [0, 1] and u [b, 9] to the same, batched.

    Brightness, contrast, saturation and hue change in a random order of their own for every picture.
    """
    factors = [1 + strength * (2 * u[:, index] - 1) for index, strength in enumerate(JITTER[:3])]
    factors.append(JITTER[3] * (2 * u[:, 3] - 1))
    order = ORDERS.to(u.device)[(u[:, 4] * len(ORDERS)).long()]
    strong = u[:, 5] < JITTER_CHANCE
    for place, (index, change) in itertools.product(range(4), enumerate(CHANGES)):
        _change(pictures, strong & (order[:, place] == index), change, factors[index])
    _change(pictures, u[:, 6] < GREY_CHANCE, lambda x, _: grey(x).expand_as(x), factors[0])
    sigma = SIGMA[0] + (SIGMA[1] - SIGMA[0]) * u[:, 8]
    _change(pictures, u[:, 7] < BLUR_CHANCE, blur, sigma)
    return pictures


def _change(pictures: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor], factor: Tensor) -> None:
    """Change some pictures of a batch in place."""
    (index,) = chosen.nonzero(as_tuple=True)
    if len(index):
        pictures[index] = change(pictures[index], factor[index])


def grey(pictures: Tensor) -> Tensor:
    """Luma [b, 1, s, s]."""
    red, green, blue = pictures.unbind(1)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue).unsqueeze(1)


def brightness(pictures: Tensor, factor: Tensor) -> Tensor:
    """Scaled by factor [b]."""
    return (pictures * _each(factor)).clamp_(0, 1)


def contrast(pictures: Tensor, factor: Tensor) -> Tensor:
    """Drawn to, or from, the mean luma."""
    mean = grey(pictures).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(pictures), pictures, _each(factor)).clamp_(0, 1)


def saturation(pictures: Tensor, factor: Tensor) -> Tensor:
    """Drawn to, or from, the luma of each pixel."""
    return torch.lerp(grey(pictures).expand_as(pictures), pictures, _each(factor)).clamp_(0, 1)


def hue(pictures: Tensor, shift: Tensor) -> Tensor:
    """Hue turned by a share of the circle; value and saturation (of HSV) stay."""
    red, green, blue = pictures.unbind(1)
    value, chroma = pictures.amax(1), pictures.amax(1) - pictures.amin(1)
    safe = torch.where(chroma > 0, chroma, 1.0)
    angle = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    angle = angle + 6 * shift[:, None, None]
    channels = []
    for start in (5, 3, 1):
        k = (start + angle) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, dim=1)


CHANGES = (brightness, contrast, saturation, hue)


def blur(pictures: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a width for each picture, its kernel a tenth of the side, borders reflected."""
    b, _, height, width = pictures.shape
    reach = max(1, int(0.1 * min(height, width)) // 2)
    places = torch.arange(-reach, reach + 1, device=pictures.device)
    kernel = (-0.5 * (places / sigma[:, None]).square()).exp()
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)[:, None]  # [3b, 1, k]
    flat = F.pad(pictures.reshape(1, 3 * b, height, width), (reach,) * 4, mode="reflect")
    flat = F.conv2d(flat, kernel[:, :, None, :], groups=3 * b)
    flat = F.conv2d(flat, kernel[:, :, :, None], groups=3 * b)
    return flat.reshape(b, 3, height, width)


def _each(factor: Tensor) -> Tensor:
    return factor[:, None, None, None]
