"""Vectors of any pictures: what a frozen backbone makes of each, written part by part to one Parquet file.

A part that is there is not made again, so that an attempt that was killed repeats at most the part it was at. Parts lie
beside the file, in OUT.parts/<key>/, until all are put together and the file is renamed into place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from xclr import schema
from xclr.artifact import canonical_json
from xclr.errors import BusyError, DataError, StoreError
from xclr.evaluation.features import BATCH
from xclr.evaluation.networks.network import Network
from xclr.evaluation.networks.pictures import Shown, batches, normalised
from xclr.graph.embed import part_of
from xclr.images.listing import Found, Listing
from xclr.images.obtain import taken
from xclr.stage import Progress
from xclr.store import only_writer

CODE = 1  # of what is written here; a change of values or columns raises it
PART = 1024  # pictures; they are all that is repeated, and held in memory where a table has them
MOST_BYTES = 1 << 30  # of an encoded picture
NAMED = 20  # pictures that cannot be read, named in the file's metadata
PARTS = ".parts"  # after the file's name
WHOLE = "whole.parquet"  # among the parts, until it is the file
KEY, LOST, NAMES = "key", "unreadable", "unreadable_named"  # in `about` of the files
NO_PICTURE = "no picture that can be decoded"
ANOTHER = "name another file: --out FILE"


class Written(NamedTuple):
    """A file of vectors: its rows, their width, how many pictures could not be read, and the first of these."""

    out: Path
    rows: int
    dim: int
    unreadable: int
    named: tuple[str, ...]


def write_vectors(
    network: Callable[[], Network],
    pictures: Listing,
    out: Path,
    about: Mapping[str, Any],
    *,
    force: bool = False,
    progress: Progress = lambda done, total, ok=None: None,
) -> Written:
    """Write a row for each picture that can be read, in the order of the source: schema `vectors`.

    network: opens it where there is something to compute. about: what names it, `checkpoint` among it, for the file's
    metadata, where the preparation and what cannot be read are added. A file that was made of the same checkpoint and
    pictures stays as it is, and so do parts of it; another file is replaced with `force` alone. Raises StoreError for a
    file of something else or one that cannot be written, BusyError when another process writes it, DataError when no
    picture can be read.
    """
    out = out.absolute()
    key, parts = _key(pictures, about), out.with_name(out.name + PARTS)
    _check_place(out, pictures, key, force=force)
    with _writing(out), only_writer(parts, wait=False) as mine:
        if not mine:
            raise BusyError(f"another process writes {out}", "wait for it, or name another file: --out FILE")
        if _about(out).get(KEY) != key:
            paths = _make(network, pictures, parts / key, progress)
            if not any(pq.read_metadata(path).num_rows for path in paths):
                first = _about(paths[0])[LOST][0]
                shutil.rmtree(parts)
                raise DataError(
                    f"no picture of {pictures.place} can be read, first {first}", "see what these files are"
                )
            _join(paths, parts / WHOLE, pictures.name, {**about, "pictures": str(pictures.place), KEY: key})
            (parts / WHOLE).replace(out)
        shutil.rmtree(parts)
    return _written(out)


def _key(pictures: Listing, about: Mapping[str, Any]) -> str:
    """Names what is made: of which checkpoint and pictures, and by which cut."""
    made_of = [about["checkpoint"], pictures.stamp, PART, CODE]
    return hashlib.blake2b(canonical_json(made_of).encode(), digest_size=16).hexdigest()


def _check_place(out: Path, pictures: Listing, key: str, *, force: bool) -> None:
    """Raise StoreError where a file, or the pictures themselves, would be lost."""
    if out.is_dir() or (out.exists() and out.samefile(pictures.place)):
        raise StoreError(f"{out} cannot be written: it is {'a folder' if out.is_dir() else 'what is read'}", ANOTHER)
    if out.exists() and not force and _about(out).get(KEY) != key:
        raise StoreError(f"{out} is there and holds something else", f"{ANOTHER}, or replace it: --force")


def _about(path: Path) -> dict[str, Any]:
    """What the metadata of a file say of its vectors; nothing for a file of something else."""
    try:
        about = json.loads((pq.read_schema(path).metadata or {}).get(b"about", b"{}"))
    except (pa.ArrowException, OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"{out} cannot be written: {reason}", f"{ANOTHER}, or mend that; parts that are there stay"
        ) from error


def _make(network: Callable[[], Network], pictures: Listing, folder: Path, progress: Progress) -> list[Path]:
    """Make the parts that are missing; the paths of all."""
    folder.mkdir(exist_ok=True)
    opened, found, paths, done = cache(network), pictures.found(), list[Path](), 0
    while part := list(islice(found, PART)):
        paths.append(folder / f"{len(paths):05d}.parquet")
        if not paths[-1].exists():
            _write_part(part, opened(), paths[-1], pictures.name, part_of(progress, done, pictures.most))
        done += len(part)
        progress(done, pictures.most)
    return paths


def _write_part(part: list[Found], network: Network, path: Path, name: pa.Field | None, progress: Progress) -> None:
    """Write the vectors of some pictures, and note those that cannot be read."""
    lost: dict[int, str] = {}
    vectors = _passed(part, network, lost, progress)
    places = [place for place in range(len(part)) if place not in lost]
    columns: dict[str, Any] = {
        "file": pa.array([part[place].file for place in places], pa.string()),
        "row": pa.array([part[place].row for place in places], pa.int64()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors[places].reshape(-1)), network.width),
    }
    if name is not None:
        columns[name.name] = pa.array([part[place].name for place in places], name.type)
    told = [f"{part[place]} ({lost[place]})" for place in sorted(lost)]
    about = {"preparation": asdict(network.preparation), LOST: told}
    draft = path.with_suffix(".draft")
    schema.write(pa.table(columns), draft, schema.vectors(network.width, name), about)
    _flush(draft)
    draft.replace(path)


@torch.inference_mode()
def _passed(part: list[Found], network: Network, lost: dict[int, str], progress: Progress) -> npt.NDArray[np.float32]:
    """What the network makes of pictures, float32 [n, F]; those that cannot be read are added to `lost`, with why."""

    def read(place: int) -> bytes:
        picture = part[place].picture
        assert not isinstance(picture, str)
        outcome = taken(picture, MOST_BYTES)
        if not outcome.data:
            lost[place] = outcome.error or "holds nothing"
        return outcome.data

    shown = Shown(len(part), read, lambda place: str(part[place]), lambda place: lost.setdefault(place, NO_PICTURE))
    vectors, done = np.empty((len(part), network.width), dtype=np.float32), 0
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # whose convolutions are off by a thousandth
        for batch in batches(shown, network.preparation, size=BATCH, threads=torch.get_num_threads()):
            pixels = normalised(batch.to(network.device), network.preparation)
            made = network.backbone(pixels.contiguous(memory_format=torch.channels_last))
            vectors[done : done + len(batch)] = made.float().cpu().numpy()
            done += len(batch)
            progress(done, len(part))
    return vectors


def _join(paths: list[Path], whole: Path, name: pa.Field | None, about: Mapping[str, Any]) -> None:
    """Put parts one after the other."""
    lost = [named for path in paths for named in _about(path)[LOST]]
    told = {**about, "preparation": _about(paths[0])["preparation"], LOST: len(lost), NAMES: lost[:NAMED]}
    dim = pq.read_schema(paths[0]).field("vector").type.list_size
    with schema.writing(whole, schema.vectors(dim, name), told) as add:
        for path in paths:
            add(pq.ParquetFile(path).read())
    _flush(whole)


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _written(out: Path) -> Written:
    file, about = pq.ParquetFile(out), _about(out)
    dim = file.schema_arrow.field("vector").type.list_size
    return Written(out, file.metadata.num_rows, dim, about[LOST], tuple(about[NAMES]))
