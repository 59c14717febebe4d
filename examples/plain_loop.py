"""X-CLR in a loop of one's own, in plain PyTorch, on pictures that are drawn here: python examples/plain_loop.py

Pictures whose captions share words are drawn together. It needs the library alone: pip install xclr
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from xclr.objective import xclr_loss_from_embeddings

SIZES = {"small": 8, "large": 16}
COLOURS = ("red", "green", "blue", "orange", "purple")
SHAPES = ("circle", "square")
SIDE, BATCH, STEPS = 48, 64, 40


def draw() -> tuple[Tensor, list[str]]:
    """Pictures, uint8 [n, 3, SIDE, SIDE], and their captions: each kind at 9 places."""
    pictures, captions = [], []
    for size, colour, shape, x, y in product(SIZES, COLOURS, SHAPES, (20, 24, 28), (20, 24, 28)):
        picture = Image.new("RGB", (SIDE, SIDE), "white")
        pen, half = ImageDraw.Draw(picture), SIZES[size]
        (pen.ellipse if shape == "circle" else pen.rectangle)((x - half, y - half, x + half, y + half), fill=colour)
        pictures.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
        captions.append(f"a {size} {colour} {shape}")
    return torch.stack(pictures), captions


def embed(captions: list[str]) -> Tensor:
    """Unit vectors [n, 64]: the sum of a vector for each word, where a text model would stand."""
    words = sorted({word for caption in captions for word in caption.split()})
    known = dict(zip(words, torch.randn(len(words), 64), strict=True))
    return F.normalize(torch.stack([torch.stack([known[word] for word in each.split()]).sum(0) for each in captions]))


def network() -> nn.Module:
    """A small backbone and its projector: pictures [b, 3, 32, 32] to [b, 32]."""
    layers: list[nn.Module] = []
    for inside, outside in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inside, outside, 3, 2, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
    projector = (nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *projector)


def two_views(pictures: Tensor) -> Tensor:
    """View 1 of all pictures, then view 2: random crops, half of them mirrored, float32 [2b, 3, 32, 32]."""
    both = torch.cat([pictures, pictures]).float() / 255
    scale, shift = 0.7 + 0.3 * torch.rand(len(both), 1, 1), 0.6 * torch.rand(len(both), 2, 1) - 0.3
    mirrored = torch.diag_embed(torch.stack([torch.randint(2, (len(both),)) * 2.0 - 1, torch.ones(len(both))], dim=1))
    grid = F.affine_grid(torch.cat([scale * mirrored, shift], dim=2), [len(both), 3, 32, 32], align_corners=False)
    return F.grid_sample(both, grid.to(both.device), padding_mode="border", align_corners=False)


def train() -> Iterator[float]:
    """The loss of every step."""
    pictures, captions = draw()
    embeddings, model = embed(captions), network()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        rows = torch.randperm(len(pictures))[:BATCH]
        z = F.normalize(model(two_views(pictures[rows])), dim=-1)
        e = embeddings[rows].repeat(2, 1)  # both views of a picture have its caption
        loss = xclr_loss_from_embeddings(z, e, temperature=0.1, target_temperature=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield loss.item()


def main() -> None:
    """Train, and print the loss."""
    torch.manual_seed(0)
    for step, loss in enumerate(train(), start=1):
        if step == 1 or step % 10 == 0:
            print(f"step {step:>3}  loss {loss:.3f}")


if __name__ == "__main__":
    main()
