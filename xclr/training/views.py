"""Views: a whole batch is cropped, flipped, laid on a background and recoloured at once, on any device."""

from __future__ import annotations

import colorsys
import math
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from xclr.images.preparation import Preparation
from xclr.recipe import TrainConfig
from xclr.training.keyed import keyed_uniform

JITTER = (0.4, 0.4, 0.4, 0.1)  # brightness, contrast, saturation, hue (share of the circle)
JITTER_CHANCE, GREY_CHANCE = 0.8, 0.2
RATIO = (3 / 4, 4 / 3)  # of a crop's sides
RANGES = {  # mean and deviation of each channel, after which pixels enter the network
    "half": ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
MARGIN = 256 / 224  # of the resized edge over the crop, as ImageNet is evaluated since arXiv 1409.4842
PLAIN = 0.5  # grey of the plain background
TEXTURES, TEXTURE_SIDE = 16, 64  # per group; pixels
GROUPS = 8
LUMA = (0.299, 0.587, 0.114)
YIQ = (LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
FROM_YIQ = tuple(map(tuple, torch.linalg.inv(torch.tensor(YIQ)).tolist()))


def texture_bank(groups: int = GROUPS) -> Tensor:
    """Background textures coloured by group: float [groups * TEXTURES, 3, TEXTURE_SIDE, TEXTURE_SIDE] in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    noise = sum(
        F.interpolate(torch.randn(groups * TEXTURES, 3, side, side, generator=generator), TEXTURE_SIDE, mode="bicubic")
        * (4 / side) ** 0.5
        for side in (4, 8, 16)
    )
    hues = [colorsys.hsv_to_rgb(group / groups, 0.6, 0.7) for group in range(groups)]
    base = torch.tensor(hues).repeat_interleave(TEXTURES, dim=0)[:, :, None, None]
    bank: Tensor = (base + 0.12 * noise).clamp(0, 1)
    return bank


def backdrop(bank: Tensor, groups: Tensor, u: Tensor, side: int) -> Tensor:
    """One background a row: a texture of its group, cut at a random place; u [b, 3]; returns [b, 3, side, side]."""
    which = groups * TEXTURES + (u[:, 0] * TEXTURES).long()
    cut = min(side, TEXTURE_SIDE)
    top, left = ((u[:, column] * (TEXTURE_SIDE - cut + 1)).long() for column in (1, 2))
    pieces = bank.unfold(2, cut, 1).unfold(3, cut, 1)[which, :, top, left]  # of all windows, none of which is copied
    return pieces if cut == side else F.interpolate(pieces, size=(side, side), mode="bilinear")


def training_view(pictures: Tensor, groups: Tensor, bank: Tensor, u: Tensor, config: TrainConfig) -> Tensor:
    """One augmented view a picture: uint8 [b, 4, S, S] and uniform numbers u [b, 20] to float [b, 3, s, s], normalised.

    Random resized crop and flip (SimCLR), a background of the picture's group with probability `config.background` and
    of one random colour otherwise, then brightness, contrast, saturation and hue, and grey.
    """
    cropped = random_crop(pictures, u[:, 0:5], config.image_size, config.min_crop)
    behind = backdrop(bank, groups, u[:, 5:8], config.image_size)
    plain = u[:, 11] >= config.background
    behind = torch.where(plain[:, None, None, None], u[:, 8:11, None, None], behind)
    return normalised(recolour(composite(cropped, behind), u[:, 12:20]), config)


def random_crop(pictures: Tensor, u: Tensor, side: int, min_area: float) -> Tensor:
    """Crop a random share of each picture's area, mirror half of them: [b, 4, side, side] in [0, 1]."""
    area = min_area + (1 - min_area) * u[:, 0]
    ratio = torch.exp(math.log(RATIO[0]) + u[:, 1] * (math.log(RATIO[1]) - math.log(RATIO[0])))
    ratio = ratio.clamp(min=area, max=1 / area)  # no side is longer than the picture's
    width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
    mirror = torch.where(u[:, 4] < 0.5, -1.0, 1.0)
    theta = torch.zeros(len(u), 2, 3, device=u.device)
    theta[:, 0, 0], theta[:, 1, 1] = width * mirror, height
    theta[:, 0, 2], theta[:, 1, 2] = (1 - width) * (2 * u[:, 2] - 1), (1 - height) * (2 * u[:, 3] - 1)
    grid = F.affine_grid(theta, [len(u), 4, side, side], align_corners=False)
    return F.grid_sample(premultiplied(pictures), grid, padding_mode="border", align_corners=False)


def premultiplied(pictures: Tensor) -> Tensor:
    """uint8 RGBA to float RGBA in [0, 1], colours multiplied by alpha, so that resampling bleeds no hidden colour."""
    scaled = pictures.float().div_(255)
    scaled[:, :3] *= scaled[:, 3:]
    return scaled


def composite(foreground: Tensor, background: Tensor | float) -> Tensor:
    """Premultiplied [b, 4, s, s] over [b, 3, s, s] (or a number)."""
    return foreground[:, :3] + (1 - foreground[:, 3:]) * background


def recolour(pictures: Tensor, u: Tensor) -> Tensor:
    """Colour jitter and grey as one 3 x 3 matrix and offset a picture; u [b, 8]."""
    strong = (u[:, 4] < JITTER_CHANCE).float()
    brightness, contrast, saturation = (1 + strong * limit * (2 * u[:, i] - 1) for i, limit in enumerate(JITTER[:3]))
    hue = strong * JITTER[3] * (2 * u[:, 3] - 1) * 2 * math.pi
    saturation = torch.where(u[:, 5] < GREY_CHANCE, 0.0, saturation)
    matrix = brightness[:, None, None] * contrast[:, None, None] * _colour_matrix(saturation, hue)
    # not a product with a vector, whose rounding depends on the number of rows
    grey = brightness * (pictures.mean(dim=(2, 3)) * _constant(LUMA, u.device)).sum(dim=1)
    offset = ((1 - contrast) * grey)[:, None, None]
    b, _, height, width = pictures.shape
    mixed = torch.baddbmm(offset, matrix, pictures.reshape(b, 3, -1))
    return mixed.reshape(b, 3, height, width).clamp(0, 1)


def _colour_matrix(saturation: Tensor, hue: Tensor) -> Tensor:
    """Scale the chroma and turn it by `hue` radians, luma kept: [b, 3, 3]."""
    turned = torch.zeros(len(hue), 3, 3, device=hue.device)
    turned[:, 0, 0] = 1
    turned[:, 1, 1] = turned[:, 2, 2] = saturation * hue.cos()
    turned[:, 1, 2], turned[:, 2, 1] = -saturation * hue.sin(), saturation * hue.sin()
    return _constant(FROM_YIQ, hue.device) @ turned @ _constant(YIQ, hue.device)


def normalised(pictures: Tensor, config: TrainConfig) -> Tensor:
    """[b, 3, s, s] in [0, 1] to the network's range."""
    mean, deviation = (_constant(each, pictures.device).view(3, 1, 1) for each in RANGES[config.normalisation])
    return (pictures - mean) / deviation


@cache
def _constant(values: tuple[object, ...], device: torch.device) -> Tensor:
    """Numbers on a device, copied there once: a copy waits for all that the device has still to do."""
    return torch.tensor(values, device=device)


def still(pictures: Tensor, background: Tensor | float, config: TrainConfig) -> Tensor:
    """The whole picture without augmentation on a background, for evaluation: [b, 3, s, s], normalised."""
    size = (config.image_size, config.image_size)
    small = F.interpolate(premultiplied(pictures), size=size, mode="bilinear", antialias=True)
    return normalised(composite(small, background), config)


def preparation_of(train: TrainConfig) -> Preparation:
    """What a backbone that was trained here is shown: image_size pixels, with a margin unless it knows stickers."""
    margin = 1.0 if train.views == "stickers" else MARGIN
    mean, std = RANGES[train.normalisation]
    return Preparation(
        size=train.image_size,
        resize=round(margin * train.image_size),
        mean=mean,
        std=std,
        interpolation="bilinear",
    )


def view_numbers(seed: int, epoch: int, view: int, rows: Tensor) -> Tensor:
    """The random numbers of one view of each row, [b, 20]."""
    return keyed_uniform((seed, epoch, view), rows, 20)


def shuffled_groups(groups: Tensor, rows: Tensor, count: int = GROUPS) -> Tensor:
    """For each row a random group other than its own, fixed by the row."""
    step = 1 + (keyed_uniform((0xB6,), rows, 1)[:, 0] * (count - 1)).long()
    return (groups + step) % count


def evaluation_backdrop(bank: Tensor, groups: Tensor, rows: Tensor, side: int) -> Tensor:
    """A background of the given group for each row, fixed by the row: [b, 3, side, side]."""
    return backdrop(bank, groups, keyed_uniform((0xE7,), rows, 3), side)


def as_groups(groups: npt.NDArray[np.int64] | None, n: int) -> Tensor:
    """Group of each row; data without groups draw their backgrounds by row."""
    return torch.arange(n) % GROUPS if groups is None else torch.from_numpy(groups)
