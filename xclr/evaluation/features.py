"""The stages `features` and `benchmark_features`: one forward pass of a frozen backbone over every picture."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from xclr import schema, shards
from xclr.evaluation.benchmark import place_of
from xclr.evaluation.data import ROWS, VECTORS
from xclr.evaluation.datasets import BORDER, Tree
from xclr.evaluation.networks.network import Network, open_network
from xclr.evaluation.networks.pictures import Shown, batches, framed_as, normalised
from xclr.evaluation.stages import BenchmarkFeaturesConfig, FeaturesConfig
from xclr.graph.embed import part_of
from xclr.images import PictureFiles, usable_rows
from xclr.images.preparation import Preparation
from xclr.images.stages import unreadable
from xclr.recipe import Framing
from xclr.stage import Produced, Progress, Stage
from xclr.store import Store

Featured = Stage[FeaturesConfig] | Stage[BenchmarkFeaturesConfig]
BATCH = 256  # pictures a forward pass
COPY_ROWS = 1 << 16
KEPT = 1 << 28  # bytes of decoded pictures that are kept for the next network of this process
SHARD, LOST = "vectors.npy", "lost.npy"  # in a shard's folder


class Pictures(NamedTuple):
    """What a stage shows a backbone: row ids int64 [n], sorted, and how to read and to name the picture at a place."""

    rows: npt.NDArray[np.int64]
    read: Callable[[int], bytes]
    name: Callable[[int], str]
    border: int = 0  # pixels to cut on each side
    framing: Framing = "standard"
    source: tuple[str, ...] = ()  # names what is shown, whatever the network
    own: bool = False  # not published: what cannot be read is told, and ends nothing


class Decoded(NamedTuple):
    """Pictures as a network is shown them, uint8 [b, 3, s, s] each, and the rows of those that cannot be read."""

    batches: list[Tensor]
    lost: list[int]


_kept: dict[tuple[tuple[str, ...], Preparation, range], Decoded] = {}  # the oldest first
_changing = threading.Lock()


def run(stage: Featured, out: Path, progress: Progress) -> Produced:
    """Write rows.npy (int64 [n]) and vectors.npy (float16 [n, F]); makes the shards that are missing."""
    pictures, number = pictures_of(stage), stage.pieces(Store.of(stage.inputs["checkpoint"].path)).shards
    size, total = stage.config.shard, len(pictures.rows)
    missing = shards.missing(out, number)
    network = open_network(stage.inputs["checkpoint"]) if missing else None
    for shard in missing:
        assert network is not None
        place = shards.Shard(out, shard, size)
        _make(place, pictures, network, part_of(progress, min(total, shard * size), total))
    width = _join(out, number, total)
    np.save(out / ROWS, pictures.rows)
    parts = [path for shard in range(number) if (path := shards.folder(out, shard) / LOST).exists()]
    lost = [row for path in parts for row in np.load(path).tolist()]
    stats = {"rows": total, "width": width, "forward_passes": total, **unreadable(lost)}
    return Produced((ROWS, VECTORS), stats, scratch=(shards.SHARDS,))


def run_shard(stage: Featured, out: Path, shard: int, progress: Progress) -> None:
    """Make one shard, for `run` to find."""
    place = shards.Shard(out, shard, stage.config.shard)
    _make(place, pictures_of(stage), open_network(stage.inputs["checkpoint"]), progress)


def pictures_of(stage: Featured) -> Pictures:
    """The pictures of a stage: those of a data set, or the recipe's own that can be decoded and that a split uses."""
    config, inputs = stage.config, stage.inputs
    source = tuple(str(each.path) for role, each in inputs.items() if role != "checkpoint")
    if isinstance(config, BenchmarkFeaturesConfig):
        names = schema.read(inputs["benchmark"].path / "items.parquet", schema.ITEMS, ["name"])["name"]
        tree = Tree.open(place_of(config, inputs.get("export")))

        def read(place: int) -> bytes:
            return tree.read(names[place].as_py())

        border = BORDER.get(config.dataset, 0)
        return Pictures(np.arange(len(names)), read, lambda place: str(names[place]), border, config.framing, source)
    splits = pq.read_table(inputs["captions"].path / "captions.parquet", columns=["split"])["split"].to_numpy()
    rows = usable_rows(inputs["images"].path)
    rows = rows[splits[rows] != "unused"]
    if config.sample is not None:
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), config.sample)).round().astype(np.int64))]
    files = PictureFiles.open(inputs["images"].path, rows)
    return Pictures(
        rows, files.encoded, lambda place: f"row {rows[place]}", source=(*source, str(config.sample)), own=True
    )


@torch.inference_mode()
def _make(place: shards.Shard, pictures: Pictures, network: Network, progress: Progress) -> None:
    """Pass a shard's pictures through the backbone."""
    first = place.shard * place.size
    count = max(0, min(len(pictures.rows) - first, place.size))
    how, lost = replace(framed_as(network.preparation, pictures.framing), border=pictures.border), list[int]()
    vectors = np.empty((count, network.width), dtype=np.float16)
    done = 0
    for batch in _decoded(pictures, range(first, first + count), how, lost):
        part = normalised(batch.to(network.device), how).contiguous(memory_format=torch.channels_last)
        vectors[done : done + len(batch)] = network.backbone(part).half().cpu().numpy()
        done += len(batch)
        progress(done, count)
    with shards.writing(place) as folder:
        np.save(folder / SHARD, vectors)
        if lost:
            np.save(folder / LOST, np.array(lost, dtype=np.int64))


def _decoded(pictures: Pictures, places: range, how: Preparation, lost: list[int]) -> Iterator[Tensor]:
    """The pictures at some places, decoded unless the network before was shown the same; adds to `lost`."""
    key = pictures.source, how, places
    if (kept := _kept.get(key)) is not None:
        lost += kept.lost
        yield from kept.batches
        return
    shown = Shown(
        len(places),
        lambda index: pictures.read(places[index]),
        lambda index: pictures.name(places[index]),
        (lambda index: lost.append(int(pictures.rows[places[index]]))) if pictures.own else None,
    )
    few, kept = len(places) * 3 * how.size**2 <= KEPT, Decoded([], lost)
    for batch in batches(shown, how, size=BATCH, threads=torch.get_num_threads()):
        yield batch
        if few:
            kept.batches.append(batch)
    if few:
        _keep(key, kept)


def _keep(key: tuple[tuple[str, ...], Preparation, range], decoded: Decoded) -> None:
    """Take pictures into what is kept, and the oldest out of what is more than KEPT bytes."""
    with _changing:
        _kept[key] = decoded
        while sum(each.nbytes for kept in _kept.values() for each in kept.batches) > KEPT:
            del _kept[next(iter(_kept))]


def _join(out: Path, number: int, total: int) -> int:
    """Put the shards' vectors one after the other; their width."""
    parts = [np.load(shards.folder(out, shard) / SHARD, mmap_mode="r") for shard in range(number)]
    width = int(parts[0].shape[1])
    whole = open_memmap(out / VECTORS, mode="w+", dtype=np.float16, shape=(total, width))
    done = 0
    for part in parts:
        for start in range(0, len(part), COPY_ROWS):
            rows = part[start : start + COPY_ROWS]
            whole[done : done + len(rows)] = rows
            done += len(rows)
    whole.flush()
    return width
