"""Two SimCLR views of JPEGs at 224 pixels, one core: ours against torchvision's pipeline; and how long a step waits."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms import v2

from tests.bench.measure import Figure, compare
from xclr.images import PictureFiles
from xclr.recipe import TrainConfig
from xclr.training import Rank, StreamedBatches, augment
from xclr.training.loader import Loaded, _Decoded
from xclr.training.objectives.materials import NOTHING

COUNT, SIZE = 32, (500, 375)
CONFIG = TrainConfig(views="simclr", image_size=224, min_crop=0.08, batch_size=COUNT, workers=0)


def jpegs(count: int = COUNT, size: tuple[int, int] = SIZE) -> list[bytes]:
    """Pictures with the detail of photographs: 100 to 150 kB each is more than ImageNet's mean of 110 kB."""
    found = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        scales = [torch.randn(1, 3, side, side, generator=generator) / side**0.5 for side in (4, 16, 64, 256)]
        smooth = sum(F.interpolate(each, size[::-1], mode="bicubic") for each in scales)
        pixels = ((smooth[0] * 60 + 128).clamp(0, 255)).byte().permute(1, 2, 0).numpy()
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="JPEG", quality=90)
        found.append(stream.getvalue())
    return found


def torchvision_simclr() -> v2.Compose:
    return v2.Compose(
        [
            v2.RandomResizedCrop(224, scale=(0.08, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], p=0.5),
            v2.ToImage(),
        ]
    )


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        data, transform = jpegs(), torchvision_simclr()
        sizes = np.array([len(each) for each in data])
        (Path(folder) / "shard-00000.tar").write_bytes(b"".join(data))
        rows, zeros = np.arange(COUNT), np.zeros(COUNT, np.int64)
        files = PictureFiles(Path(folder), rows, zeros, np.cumsum(sizes) - sizes, sizes)
        batches = StreamedBatches(files, CONFIG, 0)
        decoded = _Decoded(batches, NOTHING)

        def theirs() -> None:
            for each in data:
                picture = Image.open(io.BytesIO(each)).convert("RGB")
                for _ in range(2):
                    transform(picture)

        def workers() -> None:
            decoded[(0, rows)]

        def everything() -> None:
            loaded = decoded[(0, rows)]
            assert isinstance(loaded, Loaded)
            augment.recolour(loaded.pixels.permute(0, 3, 1, 2).float().div_(255).contiguous(), loaded.colours)

        yield compare(
            "loader: decode, crop and flip / torchvision's whole SimCLR views, 224 px", workers, theirs, 0.125, 3
        )
        yield compare("loader: everything on the CPU / torchvision's, 224 px", everything, theirs, 0.333, 3)
        yield starvation(batches)


def starvation(batches: StreamedBatches) -> Figure:
    """Share of a step's time that next(stream) takes, where the step takes twice what its worker needs."""
    config = CONFIG.model_copy(update={"workers": 1, "image_size": 64})
    streamed = StreamedBatches(batches.pictures, config, 0)
    stream, waited, started = streamed.stream(0, 12, Rank.here()), 0.0, 0.0
    for step in range(12):
        asked = time.perf_counter()
        if step == 2:  # the pipe is full
            waited, started = 0.0, asked
        next(stream)
        waited += time.perf_counter() - asked
        end = time.perf_counter() + 0.6
        while time.perf_counter() < end:  # a step's work on this core
            torch.randn(200, 200) @ torch.randn(200, 200)
    return Figure(
        "loader: waiting and colouring on the CPU / step of 0.6 s for 32 pictures, 1 worker",
        waited,
        time.perf_counter() - started,
        0.02,
        "s",
    )
