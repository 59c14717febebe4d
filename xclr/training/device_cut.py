"""JPEGs decoded where the network is, on a GPU by nvJPEG, and all their views cut at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from xclr.training.ranks import moved

MOST_PIXELS = 1 << 25  # of pictures and their views that are made at a time, about 1 GB


class Uncut(NamedTuple):
    """A JPEG and which views are to be cut of it."""

    data: bytes
    size: tuple[int, int]  # height, width
    parts: list[tuple[int, int, int, int, bool]]  # of each view: left, top, width, height, mirrored


class Jpegs(NamedTuple):
    """Those of a share of a batch whose views the device makes."""

    places: Tensor  # in the share [m]
    data: Tensor  # their bytes one after the other, uint8
    lengths: Tensor  # [m]
    sizes: Tensor  # height, width [m, 2]
    parts: Tensor  # [m, v, 5]

    @classmethod
    def of(cls, uncut: dict[int, Uncut]) -> Jpegs:
        """From each by its place."""
        data = np.frombuffer(b"".join(each.data for each in uncut.values()), np.uint8)
        return cls(
            torch.tensor(list(uncut), dtype=torch.int64),
            torch.from_numpy(data.copy()),
            *(
                torch.tensor(some, dtype=torch.int64)
                for some in (
                    [len(each.data) for each in uncut.values()],
                    [each.size for each in uncut.values()],
                    [each.parts for each in uncut.values()],
                )
            ),
        )

    def views(self, side: int, device: torch.device) -> Tensor | list[int]:
        """Their views on a device, uint8 [v, m, side, side, 3]; where it cannot decode some, the places of these."""
        found, bad = list[Tensor](), list[int]()
        data = torch.split(self.data, self.lengths.tolist())
        group = (self.sizes.prod(1) + self.parts.shape[1] * side**2).cumsum(0) // MOST_PIXELS
        for each in torch.unique(group):
            (some,) = (group == each).nonzero(as_tuple=True)
            pictures = decoded([data[index] for index in some], device)
            fit = [
                picture is not None and list(picture.shape[1:]) == size
                for picture, size in zip(pictures, self.sizes[some].tolist(), strict=True)
            ]
            bad += self.places[some[~torch.tensor(fit)]].tolist()
            if not bad:
                found.append(cut_all([picture for picture in pictures if picture is not None], self.parts[some], side))
        return bad or torch.cat(found, dim=1)


def decoded(data: Sequence[Tensor], device: torch.device) -> list[Tensor | None]:
    """Each JPEG, uint8 [bytes] on the CPU, as uint8 [3, h, w] on a device; None for one that it cannot decode."""
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        return list(decode_jpeg(list(data), ImageReadMode.RGB, device=device))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # and nothing of the others
        return [None] if len(data) == 1 else [one for each in data for one in decoded([each], device)]


def cut_all(pictures: Sequence[Tensor], parts: Tensor, side: int) -> Tensor:
    """`augment.cut` at full size, of all views of many pictures in two passes: uint8 [v, m, side, side, 3].

    Pictures are uint8 [3, h, w] of any sizes on one device, parts [m, v, 5] on the CPU. The pictures' lines lie one
    after the other; a pass adds up, for all pixels that it makes, one after another of the pixels each is made of.
    """
    device, views = pictures[0].device, parts.shape[1]
    left, top, width, height, mirrored = parts.flatten(0, 1).unbind(1)  # [n]
    sizes = torch.tensor([each.shape[1:] for each in pictures])
    stride = sizes[:, 1].repeat_interleave(views)
    begin = (sizes.prod(1).cumsum(0) - sizes.prod(1)).repeat_interleave(views) + top * stride + left
    above = height.cumsum(0) - height  # lines of the views before
    view = torch.arange(len(left)).repeat_interleave(height)  # of each line [l]
    lines = begin[view] + (torch.arange(len(view)) - above[view]) * stride[view]
    view, lines, above = (moved(each, device) for each in (view, lines, above))

    pixels = torch.cat([each.flatten(1) for each in pictures], dim=1)
    across = torch.zeros(3, len(lines), side, device=device)
    for place, weight in zip(*_taps(width, mirrored, side, device), strict=True):
        across += pixels[:, lines[:, None] + place[view]] * weight[view]
    made = torch.zeros(3, len(above), side, side, device=device)
    for place, weight in zip(*_taps(height, torch.zeros_like(height), side, device), strict=True):
        made += across[:, above[:, None] + place] * weight[..., None]
    return made.round_().to(torch.uint8).permute(1, 2, 3, 0).view(-1, views, side, side, 3).transpose(0, 1)


def _taps(length: Tensor, mirrored: Tensor, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of which pixels of lines of lengths [n], and with what weights, those of the resized lines are: [k, n, side].

    Weights are those of F.interpolate(mode="bilinear", antialias=True), a triangle as wide as two pixels of the
    smaller picture.
    """
    count = 2 * math.ceil(max(float(length.max()) / side, 1)) + 1
    length, mirrored = (moved(each, device)[:, None] for each in (length, mirrored))
    scale = length.double() / side
    reach = scale.clamp(min=1)
    pixel = torch.arange(side, device=device)
    middle = (torch.where(mirrored > 0, side - 1 - pixel, pixel) + 0.5) * scale
    first = (middle - reach + 0.5).floor().clamp_(min=0).long()
    place = first + torch.arange(count, device=device)[:, None, None]
    weight = (1 - ((place + 0.5 - middle) / reach).abs()).clamp_(min=0) * (place < length)
    return place.minimum(length - 1), (weight / weight.sum(0)).float()


def lacking(device: torch.device) -> str | None:
    """Why JPEGs are not decoded on a device, which one is tried to tell; None where they are."""
    if device.type != "cuda":
        return "there is no GPU"
    try:
        from torchvision.io import decode_jpeg, encode_jpeg

        decode_jpeg(encode_jpeg(torch.zeros(3, 16, 16, dtype=torch.uint8)), device=device)
    except (ImportError, AttributeError, RuntimeError) as error:
        return str(error).partition("\n")[0]
    return None
