"""Batches of photographs: decoded and cut by worker processes or the rank's device, and coloured there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
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
from xclr.training.device_cut import Jpegs, Uncut, lacking
from xclr.training.keyed import epoch_order, keyed_uniform, windowed_order
from xclr.training.meter import WORKERS
from xclr.training.model import memory_format
from xclr.training.neighbourhoods import Neighbourhoods
from xclr.training.objectives.materials import NOTHING, Look, Looked
from xclr.training.ranks import Rank, Road, moved
from xclr.training.stop import SIGNALS
from xclr.training.views import PLAIN, normalised

Share = tuple[int, npt.NDArray[np.int64]]  # epoch and positions of a rank's part of a batch
Made = Uncut | Tensor  # of a picture: views uint8 [v, s, s, 3], or what the device cuts
Seconds = npt.NDArray[np.float64]  # by WORKERS
MOST_BAD = 100  # pictures that cannot be read, one after the other; more are no bad pictures but a bad data set
AHEAD = 2  # batches that each worker prepares


class Loaded(NamedTuple):
    """What a worker makes of a share of a batch."""

    epoch: int
    positions: Tensor  # of the share [b]
    rows: Tensor  # [b]
    pixels: Tensor  # uint8 [v * those that are not among the jpegs, s, s, 3]
    jpegs: Jpegs | None
    colours: Tensor  # numbers [vb, 9]
    lost: Tensor  # rows in whose place others stand [l]
    looked: Looked
    spent: Tensor  # Seconds


def open_batches(
    captions: Path, images: Path, config: TrainConfig, seed: int, graph: Path | None = None
) -> PictureBatches | StreamedBatches:
    """The training pictures as `config.views` wants them, in an order over the graph where that has to be.

    Raises DataError when they do not fill one batch, or lack a graph.
    """
    opened: Callable[..., PictureBatches | StreamedBatches] = StreamedBatches.open
    return (PictureBatches.open if config.views == "stickers" else opened)(captions, images, config, seed, graph)


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
    neighbourhoods: Neighbourhoods | None = None  # where a share comes by them

    @classmethod
    def open(
        cls, captions: Path, images: Path, config: TrainConfig, seed: int, graph: Path | None = None
    ) -> StreamedBatches:
        """Find the training pictures; raises DataError when they do not fill one batch, or lack a graph."""
        rows = training_rows(captions, images, config, seed)
        several = CaptionsOf.open(captions, rows, usable_rows(images), in_turn=config.captions == "all")
        near = Neighbourhoods.open(captions, graph, rows, several, config, seed)
        return cls(PictureFiles.open(images, rows), config, seed, captions=several, neighbourhoods=near)

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
        decoded = _Decoded(self, look, by_device=self._by_device(place))
        loader: DataLoader[Loaded | DataError] = DataLoader(
            decoded,
            batch_size=None,
            sampler=self._shares(start, stop, place),
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            pin_memory=place.device.type == "cuda",
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),  # so that a training that goes on draws what it would have drawn
        )
        compiled = place.device.type == "cuda" and compiles(self.config, place.device)
        road = Road(place.device)
        for loaded in loader:
            if isinstance(loaded, DataError):
                raise DataError(loaded.message, loaded.remedy)
            came = time.perf_counter()
            whole, pixels = self._whole(loaded, decoded, road)
            self._note(whole.lost.tolist())
            views = self._coloured(pixels, whole.colours, compiled=compiled)
            batch = Batch(moved(whole.rows, place.device), views, whole.looked.to(place.device))
            self._count(WORKERS, [each / max(workers, 1) for each in loaded.spent.tolist()])
            self._count(("copy",), [time.perf_counter() - came])
            yield batch

    def _whole(self, loaded: Loaded, decoded: _Decoded, road: Road) -> tuple[Loaded, Tensor]:
        """The share and its pixels, uint8 [vb, s, s, 3], on the device; where that cannot decode some, the CPU does."""
        pixels, jpegs, side = road(loaded.pixels), loaded.jpegs, self.config.image_size
        if jpegs is None:
            return loaded, pixels
        views = jpegs.views(side, road.device)
        if isinstance(views, list):
            share = loaded.epoch, loaded.positions.numpy()
            return self._whole(decoded.load(share, by_cpu=views), decoded, road)
        whole = pixels.new_empty(self.views, len(loaded.rows), side, side, 3)
        others = torch.ones(len(loaded.rows), dtype=torch.bool)
        others[jpegs.places] = False
        whole[:, moved(jpegs.places, road.device)] = views
        whole[:, moved(others.nonzero()[:, 0], road.device)] = pixels.view(self.views, -1, side, side, 3)
        return loaded, whole.flatten(0, 1)

    def _by_device(self, place: Rank) -> bool:
        """Whether the rank's device decodes; a line says so where it does not, though the config says that it does."""
        if self.config.decode != "gpu":
            return False
        why = lacking(place.device)
        if why is not None:
            print(
                f"train.decode is gpu, and {why}: the CPU decodes instead, whose pixels are slightly other ones than "
                "the config says",
                flush=True,
            )
        return why is None

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
        if self.neighbourhoods is not None:
            return self.neighbourhoods.order(epoch)
        if self.config.shuffle_shards is None:
            return epoch_order(self.seed, epoch, len(self.pictures.rows)).numpy()
        return windowed_order(self.seed, epoch, self.pictures.shards, self.config.shuffle_shards)

    def _coloured(self, pixels: Tensor, u: Tensor, *, compiled: bool) -> Tensor:
        views = pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255)  # stays channels-last
        if self.colours and self.config.views == "simclr":
            views = augment.recolour(views.contiguous(), u, compiled=compiled)
        return normalised(views, self.config).contiguous(memory_format=memory_format(self.config))


class _Decoded(Dataset[Loaded | DataError]):
    """What workers make of a share: each picture is decoded once and cut into its views, or left to the device."""

    def __init__(self, batches: StreamedBatches, look: Look, *, by_device: bool = False) -> None:
        self.pictures, self.config, self.seed = batches.pictures, batches.config, batches.seed
        self.captions, self.look, self.by_device = batches.captions, look, by_device
        self.views, self.by_policy = batches.views, batches.colours and batches.config.views == "autoaugment"

    def __getitem__(self, share: Share) -> Loaded | DataError:
        try:
            return self.load(share)
        except DataError as error:  # a worker's exception would lose its remedy
            return error

    def load(self, share: Share, by_cpu: Collection[int] = ()) -> Loaded:
        """A share; pictures at the places `by_cpu` are not left to the device. Raises DataError as `stream` does."""
        epoch, positions = share
        rows = torch.from_numpy(self.pictures.rows[positions])
        chosen, lost, spent = positions.copy(), list[int](), np.zeros(len(WORKERS))
        numbers = torch.stack([keyed_uniform((self.seed, epoch, view), rows, NUMBERS) for view in range(self.views)])
        side = self.config.image_size
        pixels = torch.empty(self.views, len(rows), side, side, 3, dtype=torch.uint8)
        uncut = dict[int, Uncut]()
        for index, position in enumerate(positions):
            views = partial(self._views, numbers=numbers[:, index], spent=spent, by_cpu=index in by_cpu)
            chosen[index], made = self._readable(int(position), views, lost)
            if isinstance(made, Uncut):
                uncut[index] = made
            else:
                pixels[:, index - len(uncut)] = made
        colours = numbers[:, :, CROP_NUMBERS : NUMBERS - POLICY_NUMBERS].flatten(0, 1)
        seen = torch.from_numpy(self.pictures.rows[chosen])
        if self.captions is not None:
            seen = self.captions.drawn(self.seed, epoch, chosen)
        return Loaded(
            epoch,
            torch.from_numpy(positions),
            seen,
            pixels[:, : len(rows) - len(uncut)].flatten(0, 1),
            Jpegs.of(uncut) if uncut else None,
            colours,
            torch.tensor(lost, dtype=torch.int64),
            self.look(seen),
            torch.from_numpy(spent),
        )

    def _readable(self, position: int, views: Callable[[int], Made], lost: list[int]) -> tuple[int, Made]:
        """The position or the next whose picture can be read, and its views; rows that cannot are added to lost."""
        for ahead in range(MOST_BAD + 1):
            chosen = (position + ahead) % len(self.pictures.rows)
            try:
                return chosen, views(chosen)
            except UnreadableError:
                if ahead == MOST_BAD:
                    raise
                lost.append(int(self.pictures.rows[chosen]))
        raise AssertionError

    def _views(self, position: int, numbers: Tensor, spent: Seconds, *, by_cpu: bool) -> Made:
        side, config, began = self.config.image_size, self.config, time.perf_counter()
        size, decode, jpeg = self.pictures.picture(position, PLAIN)
        read = time.perf_counter()
        parts = [augment.crop(size, u, config.min_crop) for u in numbers]
        if self.by_device and jpeg is not None and not by_cpu:
            spent[0] += read - began
            cuts = [(*part, augment.mirrors(u)) for part, u in zip(parts, numbers, strict=True)]
            return Uncut(jpeg, size[::-1], cuts)
        picture = decode(min(min(part.width, part.height) for part in parts) / side)
        decoded = time.perf_counter()
        scale = picture.shape[1] / size[0], picture.shape[0] / size[1]
        views = [augment.cut(picture, part, scale, u, side) for part, u in zip(parts, numbers, strict=True)]
        if self.by_policy:
            views = [augment.auto_augment(view, u[-POLICY_NUMBERS:]) for view, u in zip(views, numbers, strict=True)]
        spent += np.diff([began, read, decoded, time.perf_counter()])
        return torch.stack(views)


def _ignore_signals(worker: int) -> None:
    """A stop is the rank's affair: its workers go on until it has saved, and end with it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
