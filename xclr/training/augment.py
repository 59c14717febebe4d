"""Two views of a photograph: crop, flip and AutoAugment on the picture that was decoded, colour and blur on the batch.

Each function takes its random numbers as uniform ones, so that they may depend on (seed, epoch, view, row) alone; with
these the distributions are those of torchvision's RandomResizedCrop, ColorJitter, RandomGrayscale, GaussianBlur and
AutoAugment. Source: arXiv 2002.05709, appendix A; arXiv 1805.09501.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from xclr.training.ranks import moved

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


def cut(picture: Tensor, part: Crop, scale: tuple[float, float], u: Tensor, side: int) -> Tensor:
    """The part of a picture, scaled by `scale` since the part was picked, resized and in half of cases mirrored.

    uint8 [h, w, 3] to [side, side, 3]. The edges of a part of a picture that was scaled lie between its pixels.
    """
    left, top = part.left * scale[0], part.top * scale[1]
    right, bottom = left + part.width * scale[0], top + part.height * scale[1]
    x, y = math.floor(left), math.floor(top)
    whole = picture[y : math.ceil(bottom), x : math.ceil(right)]
    height, width, _ = whole.shape
    if scale == (1, 1):
        view = _resized(whole, side)
    else:
        box = (left - x, top - y, min(right - x, width), min(bottom - y, height))
        resized = Image.fromarray(whole.numpy()).resize((side, side), Image.Resampling.BILINEAR, box=box)
        view = torch.from_numpy(np.array(resized))
    return view.flip(1) if mirrors(u) else view


def mirrors(u: Tensor) -> bool:
    """Whether a view is mirrored."""
    return bool(u[4 * ATTEMPTS] < 0.5)


def _resized(picture: Tensor, side: int) -> Tensor:
    """As Pillow resizes it, but for 1 of 255 here and there, in half the time: uint8 [h, w, 3] to [side, side, 3]."""
    layers = picture.permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(layers, (side, side), mode="bilinear", antialias=True)[0].permute(1, 2, 0)


def auto_augment(picture: Tensor, u: Tensor) -> Tensor:
    """One of the policies that AutoAugment found for ImageNet, of uint8 [h, w, 3].

    u [5]: which, whether its two steps, and their signs.
    """
    policy = _auto_augment()
    policy.u = u
    return torch.from_numpy(np.array(policy(Image.fromarray(picture.numpy()))))


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


class Colours(NamedTuple):
    """What is done to each picture of a batch."""

    order: Tensor  # [b, 4]: which of CHANGES comes first, second, third, fourth; -1 for none
    factors: Tensor  # [b, 4]: of each of CHANGES
    greyed: Tensor  # bool [b]
    sigma: Tensor  # [b]: of the blur, 0 for none


def colours(u: Tensor) -> Colours:
    """SimCLR's colour jitter, grey and blur, drawn by u [b, 9]: the changes come in a random order of each picture."""
    factors = [1 + strength * (2 * u[:, index] - 1) for index, strength in enumerate(JITTER[:3])]
    factors.append(JITTER[3] * (2 * u[:, 3] - 1))
    order = torch.where(u[:, 5:6] < JITTER_CHANCE, ORDERS[(u[:, 4] * len(ORDERS)).long()], -1)
    sigma = torch.where(u[:, 7] < BLUR_CHANCE, SIGMA[0] + (SIGMA[1] - SIGMA[0]) * u[:, 8], 0.0)
    return Colours(order, torch.stack(factors, dim=1), u[:, 6] < GREY_CHANCE, sigma)


def recolour(pictures: Tensor, u: Tensor, *, compiled: bool = False) -> Tensor:
    """Apply `colours` to pictures, float [b, 3, s, s] in [0, 1] on any device, in place; u [b, 9] is on the CPU.

    A change is computed of the pictures that it is drawn for, of which the CPU knows without asking the device; where
    it is compiled, for a GPU, of all of them, but many in one kernel.
    """
    drawn = colours(u)
    if compiled:
        pictures = _compiled()(pictures, Colours(*(moved(each, pictures.device) for each in drawn)))
    else:
        pictures = _jitter(pictures, drawn, _change_some)
    return _change_some(pictures, drawn.sigma > 0, blur, drawn.sigma)


Change = Callable[[Tensor, Tensor], Tensor]


def _jitter(pictures: Tensor, drawn: Colours, change: Callable[[Tensor, Tensor, Change, Tensor], Tensor]) -> Tensor:
    for place, (index, one) in itertools.product(range(4), enumerate(CHANGES)):
        pictures = change(pictures, drawn.order[:, place] == index, one, drawn.factors[:, index])
    return change(pictures, drawn.greyed, lambda x, _: grey(x).expand_as(x), drawn.sigma)


@cache
def _compiled() -> Callable[[Tensor, Colours], Tensor]:
    compiled: Callable[[Tensor, Colours], Tensor] = torch.compile(partial(_jitter, change=_change_all))
    return compiled


def _change_some(pictures: Tensor, chosen: Tensor, change: Change, factor: Tensor) -> Tensor:
    """Change some pictures of a batch in place."""
    (index,) = chosen.nonzero(as_tuple=True)
    if len(index):
        place = moved(index, pictures.device)
        pictures[place] = change(pictures[place], moved(factor[index], pictures.device))
    return pictures


def _change_all(pictures: Tensor, chosen: Tensor, change: Change, factor: Tensor) -> Tensor:
    """Change all pictures of a batch, and take those that are chosen."""
    return torch.where(_each(chosen), change(pictures, factor), pictures)


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
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    safe = torch.where(chroma > 0, chroma, 1.0)
    second = torch.where(value == green, blue - red + 2 * safe, red - green + 4 * safe)
    angle = torch.where(value == red, green - blue, second) / safe + 6 * shift[:, None, None]
    channels = []
    for start in (5, 3, 1):
        away = (angle + (start - 2)).abs_()  # from where the channel has the least, on a circle of 6
        away = torch.minimum(away, (away - 6).abs_())
        channels.append(value - chroma * (2 - away).clamp_(0, 1))
    return torch.stack(channels, dim=1)


CHANGES = (brightness, contrast, saturation, hue)


def blur(pictures: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a width for each picture, its kernel a tenth of the side, borders reflected.

    B x B^T for each picture and colour, a row of B the kernel of a pixel: on a CPU two thirds of what a convolution
    with a kernel for each picture takes at 64 pixels, as much at 224.
    """
    side = pictures.shape[3]
    taps = _taps(side, pictures.device)  # [k, s, s]
    reach = len(taps) // 2
    kernel = (-0.5 * (torch.arange(-reach, reach + 1, device=pictures.device) / sigma[:, None]).square()).exp()
    spread = torch.tensordot(kernel / kernel.sum(dim=1, keepdim=True), taps, 1)  # [b, s, s]
    across: Tensor = (pictures.flatten(1, 2) @ spread.mT).view_as(pictures)
    down: Tensor = spread @ across.transpose(1, 2).flatten(2)  # [b, s, 3s]
    return down.view(-1, side, 3, side).transpose(1, 2)


@cache
def _taps(side: int, device: torch.device) -> Tensor:
    """Where each tap of the blur's kernel finds a pixel of a line: ones in [k, side, side]."""
    reach = max(1, int(0.1 * side) // 2)
    place = (torch.arange(-reach, reach + 1)[:, None] + torch.arange(side)).abs()  # reflected on the left
    place = torch.minimum(place, 2 * (side - 1) - place)
    return F.one_hot(place, side).float().to(device)


def _each(factor: Tensor) -> Tensor:
    return factor[:, None, None, None]
