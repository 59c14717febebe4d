"""Batches: the same pictures and views on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from xclr.captions.shared import once
from xclr.errors import DataError
from xclr.images import read_pictures, usable_rows
from xclr.recipe import TrainConfig
from xclr.training.captions import CaptionsOf
from xclr.training.keyed import epoch_order
from xclr.training.model import memory_format
from xclr.training.neighbourhoods import Neighbourhoods
from xclr.training.objectives.materials import NOTHING, Look, Looked
from xclr.training.ranks import Rank, moved
from xclr.training.subset import nested
from xclr.training.views import as_groups, texture_bank, training_view, view_numbers

ROOM = 0.5  # of a device's free memory, what pictures may take of it


class Batch(NamedTuple):
    """This rank's share of a global batch: row ids [b]; views [2b, 3, s, s], all first views, then all second.

    `looked` is what the objective reads of the rows' captions.
    """

    rows: Tensor
    views: Tensor
    looked: Looked = Looked()

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(moved(self.rows, device), moved(self.views, device), self.looked.to(device))


class Batches(Protocol):
    """An endless source of batches, addressed by global step."""

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        ...

    @property
    def batch_size(self) -> int:
        """Samples a step over all ranks."""
        ...

    @property
    def lost(self) -> set[int]:
        """The rows that this rank found unreadable so far; others stand in their places."""
        ...

    @property
    def spent(self) -> dict[str, float]:
        """Seconds that parts of the work took since somebody emptied it; nothing where the rank does it all."""
        ...

    def stream(self, start: int, stop: int, place: Rank, look: Look = NOTHING) -> Iterator[Batch]:
        """This rank's share of the batches of global steps start, ..., stop - 1, on its device.

        `look` says what of the rows' captions comes with it. The share of a step is a pure function of the step, the
        rank and the world.
        """
        ...


@dataclass(frozen=True)
class PictureBatches:
    """Batches of decoded pictures held in memory: uint8 [n, 4, S, S] (9 kB a picture at 48 pixels).

    Views are made where the pictures are. The rows are on the CPU; groups and bank are with the pictures.
    """

    rows: Tensor
    pictures: Tensor
    groups: Tensor
    bank: Tensor
    config: TrainConfig
    seed: int
    lost: set[int] = field(default_factory=set, compare=False)
    captions: CaptionsOf | None = None  # where pictures have several
    spent: dict[str, float] = field(default_factory=dict, compare=False)
    neighbourhoods: Neighbourhoods | None = None  # where a share comes by them

    @classmethod
    def open(
        cls, captions: Path, images: Path, config: TrainConfig, seed: int, graph: Path | None = None
    ) -> PictureBatches:
        """Decode the training pictures; raises DataError when they do not fill one batch, or lack a graph."""
        rows = training_rows(captions, images, config, seed)
        _check_memory(len(rows) * 4 * source_side(config) ** 2)
        lost: set[int] = set()
        pictures = read_pictures(images, rows, source_side(config), lost)
        if lost:
            places = stand_ins(rows, lost)
            rows, pictures = rows[places], pictures[torch.from_numpy(places)]
        count = int(pq.read_metadata(captions / "captions.parquet").num_rows)
        groups = as_groups(read_groups(captions), count)[rows]
        several = CaptionsOf.open(captions, rows, usable_rows(images), in_turn=config.captions == "all")
        near = Neighbourhoods.open(captions, graph, rows, several, config, seed)
        found = cls(torch.from_numpy(rows), pictures, groups, texture_bank(), config, seed, lost, several)
        return replace(found, neighbourhoods=near)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return len(self.rows) // self.config.batch_size

    @property
    def batch_size(self) -> int:
        """Samples a step over all ranks."""
        return self.config.batch_size

    def stream(self, start: int, stop: int, place: Rank, look: Look = NOTHING) -> Iterator[Batch]:
        """The batches of the steps, on the rank's device, made there of pictures that stay there, where these fit."""
        there = self.on(place.device)
        for step in range(start, stop):
            batch = there.batch(step, place.rank, place.world)
            yield batch._replace(looked=look(batch.rows)).to(place.device)

    def on(self, device: torch.device) -> PictureBatches:
        """With the pictures on a device; as it is, with a line that says so, where they take too much of its memory."""
        needed, free = self.pictures.nbytes, free_memory(device)
        if device != self.pictures.device and needed > ROOM * free:
            print(
                f"the decoded pictures stay on the CPU, where their views are made: they need {needed / 1e9:.1f} GB, "
                f"and of {free / 1e9:.1f} GB that are free on {device} the training needs the better part",
                flush=True,
            )
            return self
        pictures, groups, bank = (each.to(device) for each in (self.pictures, self.groups, self.bank))
        return replace(self, pictures=pictures, groups=groups, bank=bank)

    def batch(self, step: int, rank: int, world: int) -> Batch:
        """Samples rank * b to (rank + 1) * b of the step's global batch, and their two views."""
        epoch, within = divmod(step, self.steps_per_epoch)
        share = self.batch_size // world
        begin = within * self.batch_size + rank * share
        chosen = self._order(epoch)[begin : begin + share]
        rows = self.rows[chosen]
        place, seen = (moved(each, self.pictures.device).repeat(2) for each in (chosen, rows))
        u = torch.cat([view_numbers(self.seed, epoch, view, each) for view, each in enumerate(seen.chunk(2))])
        views = training_view(self.pictures[place], self.groups[place], self.bank, u, self.config)
        if self.captions is not None:
            rows = self.captions.drawn(self.seed, epoch, chosen.numpy())
        return Batch(rows, views.contiguous(memory_format=memory_format(self.config)))

    def _order(self, epoch: int) -> Tensor:
        if self.neighbourhoods is None:
            return epoch_order(self.seed, epoch, len(self.rows))
        return torch.from_numpy(self.neighbourhoods.order(epoch))


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def stand_ins(rows: npt.NDArray[np.int64], lost: set[int]) -> npt.NDArray[np.int64]:
    """For each of the rows [n] the position of itself or, in a circle, of the next that is not lost, [n].

    Raises DataError where all are lost.
    """
    good = np.flatnonzero(~np.isin(rows, list(lost)))
    if not len(good):
        raise DataError("no picture of the training can be read", "remove the images artifact and run the recipe again")
    return good[np.searchsorted(good, np.arange(len(rows))) % len(good)]


def training_rows(captions: Path, images: Path, config: TrainConfig, seed: int) -> npt.NDArray[np.int64]:
    """Sorted row ids of the seed's share config.fraction of the usable training pictures, of each the first row.

    Raises DataError when they do not fill one batch.
    """
    splits = pq.read_table(captions / "captions.parquet", columns=["split"]).column("split")
    usable = usable_rows(images)
    whole = usable[np.asarray(pc.equal(splits, "train"))[usable]]
    whole = once(captions, whole)
    rows = nested(whole, config.seen(len(whole)), seed)
    if len(rows) < config.batch_size:
        left, more = f" that train.fraction {config.fraction} leaves of {len(whole)}", ", or a larger train.fraction"
        raise DataError(
            f"{len(rows)} usable training pictures{left * (config.fraction < 1)} do not fill a batch of "
            f"{config.batch_size}",
            f"--set train.batch_size={max(2, len(rows) // 2)}{more * (config.fraction < 1)}",
        )
    return rows


def _check_memory(needed: int) -> None:
    """Raise DataError before pictures are decoded that do not fit."""
    free = free_memory(torch.device("cpu"))
    if needed > free:
        raise DataError(
            f"the decoded pictures need {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free",
            "--set train.views=simclr, which reads them from the shards as it goes, or a smaller data.limit",
        )


def source_side(config: TrainConfig) -> int:
    """Side at which pictures are kept before a crop, pixels: half as large again as a view."""
    return config.image_size * 3 // 2


def read_groups(captions: Path) -> npt.NDArray[np.int64] | None:
    """Group of each row, where the data have groups."""
    path = captions / "annotations.parquet"
    if not path.exists():
        return None
    return np.asarray(pq.read_table(path, columns=["group"]).column("group"), dtype=np.int64)
