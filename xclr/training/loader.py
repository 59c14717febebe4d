"""Batches of photographs: decoded, cropped and mirrored by worker processes, coloured on the rank's device."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from xclr.errors import DataError
from xclr.images import EncodedPictures, PictureFiles, UnreadableError, usable_rows
from xclr.recipe import TrainConfig
from xclr.training import augment
from xclr.training.augment import CROP_NUMBERS, NUMBERS, POLICY_NUMBERS
from xclr.training.batches import Batch, PictureBatches, training_rows
from xclr.training.captions import CaptionsOf
from xclr.training.compiling import compiles
from xclr.training.keyed import epoch_order, keyed_uniform, windowed_order
from xclr.training.meter import WORKERS
from xclr.training.model import memory_format
from xclr.training.objectives.materials import NOTHING, Look, Looked
from xclr.training.ranks import Rank, Road, moved
from xclr.training.stop import SIGNALS
from xclr.training.views import PLAIN, normalised

Share = tuple[int, npt.NDArray[np.int64]]  # epoch and positions of a rank's part of a batch
Seconds = npt.NDArray[np.float64]  # by WORKERS
MOST_BAD = 100  # pictures that cannot be read, one after the other; more are no bad pictures but a bad data set
AHEAD = 2  # batches that each worker prepares


class Loaded(NamedTuple):
    """What a worker makes of a share of a batch."""

    rows: Tensor  # [b]
    pixels: Tensor  # uint8 [vb, s, s, 3]
    colours: Tensor  # numbers [vb, 9]
    lost: Tensor  # rows in whose place others stand [l]
    looked: Looked
    spent: Tensor  # Seconds


def open_batches(captions: Path, images: Path, config: TrainConfig, seed: int) -> PictureBatches | StreamedBatches:
    """The training pictures as `config.views` wants them; raises DataError when they do not fill one batch."""
    opened: Callable[..., PictureBatches | StreamedBatches] = StreamedBatches.open
    return (PictureBatches.open if config.views == "stickers" else opened)(captions, images, config, seed)


@dataclass(frozen=True)
class StreamedBatches:
    """Batches read from shards as they are needed; in memory is only where each picture lies, 24 bytes a picture.

    Each picture gives `views` views. Without `colours` they are cropped and mirrored alone, whatever config.views says.
    In the place of a picture that cannot be read after all stands the next that can, with its row; `lost` is filled
    with the rows of the former, as this rank comes upon them.
    """

    pictures: EncodedPictures
    config: TrainConfig
    seed: int
    views: int = 2
    colours: bool = True
    lost: set[int] = field(default_factory=set, compare=False)
    captions: CaptionsOf | None = None  # where pictures have several
    spent: dict[str, float] = field(default_factory=dict, compare=False)

    @classmethod
    def open(cls, captions: Path, images: Path, config: TrainConfig, seed: int) -> StreamedBatches:
        """Find the training pictures; raises DataError when they do not fill one batch."""
        rows = training_rows(captions, images, config, seed)
        several = CaptionsOf.open(captions, rows, usable_rows(images), in_turn=config.captions == "all")
        return cls(PictureFiles.open(images, rows), config, seed, captions=several)

    @property
    def rows(self) -> Tensor:
        """Row ids of the pictures [n]."""
        return torch.from_numpy(self.pictures.rows)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return len(self.pictures.rows) // self.config.batch_size

    @property
    def batch_size(self) -> int:
        """Samples a step over all ranks."""
        return self.config.batch_size

    def stream(self, start: int, stop: int, place: Rank, look: Look = NOTHING) -> Iterator[Batch]:
        """The rank's share of the batches of global steps start, ..., stop - 1, on its device.

        Raises DataError for a damaged shard, and where more than MOST_BAD pictures in a row cannot be read.
        """
        workers = min(self.config.workers, len(os.sched_getaffinity(0)))
        loader: DataLoader[Loaded | DataError] = DataLoader(
            _Decoded(self, look),
            batch_size=None,
            sampler=self._shares(start, stop, place),
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            pin_memory=place.device.type == "cuda",
            worker_init_fn=_ignore_signals,
        )
        compiled = place.device.type == "cuda" and compiles(self.config, place.device)
        road = Road(place.device)
        for loaded in loader:
            if isinstance(loaded, DataError):
                raise DataError(loaded.message, loaded.remedy)
            came = time.perf_counter()
            self._note(loaded.lost.tolist())
            views = self._coloured(road(loaded.pixels), loaded.colours, compiled=compiled)
            batch = Batch(moved(loaded.rows, place.device), views, loaded.looked.to(place.device))
            self._count(WORKERS, [each / max(workers, 1) for each in loaded.spent.tolist()])
            self._count(("copy",), [time.perf_counter() - came])
            yield batch

    def _count(self, names: Sequence[str], seconds: Sequence[float]) -> None:
        for name, each in zip(names, seconds, strict=True):
            self.spent[name] = self.spent.get(name, 0.0) + each

    def _note(self, lost: list[int]) -> None:
        for row in sorted(set(lost) - self.lost):
            print(f"the picture of row {row} cannot be read: the next that can stands in its place", flush=True)
        self.lost.update(lost)

    def _shares(self, start: int, stop: int, place: Rank) -> Iterator[Share]:
        """Which pictures the rank takes at each step."""
        share, order, known = self.batch_size // place.world, np.zeros(0, np.int64), -1
        for step in range(start, stop):
            epoch, within = divmod(step, self.steps_per_epoch)
            if epoch != known:
                order, known = self._order(epoch), epoch
            begin = within * self.batch_size + place.rank * share
            yield epoch, order[begin : begin + share]

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        if self.config.shuffle_shards is None:
            return epoch_order(self.seed, epoch, len(self.pictures.rows)).numpy()
        return windowed_order(self.seed, epoch, self.pictures.shards, self.config.shuffle_shards)

    def _coloured(self, pixels: Tensor, u: Tensor, *, compiled: bool) -> Tensor:
        views = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)  # stays channels-last
        if self.colours and self.config.views == "simclr":
            views = augment.recolour(views.contiguous(), u, compiled=compiled)
        return normalised(views, self.config).contiguous(memory_format=memory_format(self.config))


class _Decoded(Dataset[Loaded | DataError]):
    """What workers make of a share: each picture is decoded once and cut into its views."""

    def __init__(self, batches: StreamedBatches, look: Look) -> None:
        self.pictures, self.config, self.seed = batches.pictures, batches.config, batches.seed
        self.captions, self.look = batches.captions, look
        self.views, self.by_policy = batches.views, batches.colours and batches.config.views == "autoaugment"

    def __getitem__(self, share: Share) -> Loaded | DataError:
        epoch, positions = share
        rows = torch.from_numpy(self.pictures.rows[positions])
        chosen, lost, spent = positions.copy(), list[int](), np.zeros(len(WORKERS))
        numbers = torch.stack([keyed_uniform((self.seed, epoch, view), rows, NUMBERS) for view in range(self.views)])
        side = self.config.image_size
        pixels = torch.empty(self.views, len(rows), side, side, 3, dtype=torch.uint8)
        try:
            for index, position in enumerate(positions):
                chosen[index], views = self._readable(int(position), numbers[:, index], lost, spent)
                for view, picture in enumerate(views):
                    pixels[view, index] = picture
        except DataError as error:  # a worker's exception would lose its remedy
            return error
        colours = numbers[:, :, CROP_NUMBERS : NUMBERS - POLICY_NUMBERS].flatten(0, 1)
        seen = torch.from_numpy(self.pictures.rows[chosen])
        if self.captions is not None:
            seen = self.captions.drawn(self.seed, epoch, chosen)
        return Loaded(
            seen,
            pixels.flatten(0, 1),
            colours,
            torch.tensor(lost, dtype=torch.int64),
            self.look(seen),
            torch.from_numpy(spent),
        )

    def _readable(self, position: int, numbers: Tensor, lost: list[int], spent: Seconds) -> tuple[int, list[Tensor]]:
        """The picture at a position or the next that can be read, and its views; rows that cannot are added to lost."""
        for ahead in range(MOST_BAD + 1):
            chosen = (position + ahead) % len(self.pictures.rows)
            try:
                return chosen, self._views(chosen, numbers, spent)
            except UnreadableError:
                if ahead == MOST_BAD:
                    raise
                lost.append(int(self.pictures.rows[chosen]))
        raise AssertionError

    def _views(self, position: int, numbers: Tensor, spent: Seconds) -> list[Tensor]:
        side, config, began = self.config.image_size, self.config, time.perf_counter()
        size, decode = self.pictures.picture(position, PLAIN)
        read = time.perf_counter()
        parts = [augment.crop(size, u, config.min_crop) for u in numbers]
        picture = decode(min(min(part.width, part.height) for part in parts) / side)
        decoded = time.perf_counter()
        scale = picture.shape[1] / size[0], picture.shape[0] / size[1]
        views = [augment.cut(picture, part, scale, u, side) for part, u in zip(parts, numbers, strict=True)]
        if self.by_policy:
            views = [augment.auto_augment(view, u[-POLICY_NUMBERS:]) for view, u in zip(views, numbers, strict=True)]
        spent += np.diff([began, read, decoded, time.perf_counter()])
        return views


def _ignore_signals(worker: int) -> None:
    """A stop is the rank's affair: its workers go on until it has saved, and end with it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
