"""Where the pictures of some rows are: in the source itself, in its tars, at addresses, or yet to be drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xclr.captions.source import reader_of
from xclr.errors import DataError
from xclr.files import Inside, Picture
from xclr.images.stages import ImagesConfig
from xclr.names import start_of
from xclr.recipe import SOURCES
from xclr.stage import Stage

RowIds = npt.NDArray[np.int64]


class Work(NamedTuple):
    """Which rows a stage obtains, in shards: all of the captions, or those that are tried again."""

    rows: RowIds  # ascending
    size: int  # rows of a shard
    first: int  # number of the first shard's tar; those before are of an earlier generation

    @classmethod
    def of(cls, stage: Stage[ImagesConfig]) -> Work:
        """Read from the captions, or from the generation before, what there is to do."""
        size = stage.config.data.shard
        if "before" not in stage.inputs:
            total = pq.read_metadata(stage.inputs["captions"].path / "captions.parquet").num_rows
            return cls(np.arange(total, dtype=np.int64), size, 0)
        before = stage.inputs["before"].path
        table = pq.read_table(before / "images.parquet", columns=["row_id", "status"])
        again = table.filter(pc.field("status").isin(stage.config.retry))
        return cls(np.asarray(again["row_id"], dtype=np.int64), size, len(tars(before)))

    @property
    def number(self) -> int:
        """How many shards."""
        return -(-len(self.rows) // self.size)

    def piece(self, shard: int) -> RowIds:
        """The rows of a shard, counted from 0."""
        return self.rows[shard * self.size : (shard + 1) * self.size]


def tars(images: Path) -> list[str]:
    """The names of an artifact's tars, in order."""
    return sorted(path.name for path in images.glob("shard-*.tar"))


def pictures(stage: Stage[ImagesConfig], rows: RowIds) -> Iterator[Picture]:
    """The pictures of some rows, ascending; raises DataError when the source has changed since the captions."""
    data, captions = stage.config.data, stage.inputs["captions"].path
    own = reader_of(data.source).pictures
    if SOURCES[data.source].drawn:
        from xclr.images.scenes import draw_png  # brings OpenCV

        yield from (draw_png(data, row // data.captions_each) for row in rows.tolist())
    elif (captions / "places.parquet").exists():
        assert data.path is not None
        root = start_of(data.path).absolute()
        places = columns(captions / "places.parquet", rows, ["file", "offset", "size"])
        yield from (Inside(root / file, offset, size) for file, offset, size in places)
    elif own is None:
        yield from (url for (url,) in columns(captions / "captions.parquet", rows, ["url"]))
    else:
        yield from _picked(own(data), rows, pq.read_metadata(captions / "captions.parquet").num_rows)


def where_of(picture: Picture) -> str:
    """Where a picture is, in brackets; nothing for one that has no place of its own."""
    if isinstance(picture, Inside):
        return f" (byte {picture.offset:,} of {picture.path})"
    return f" ({picture})" if isinstance(picture, str | Path) else ""


def columns(path: Path, rows: RowIds, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Values of some rows, ascending, of a table that is sorted by row; row groups without any are not read."""
    file = pq.ParquetFile(path)
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    for group, (start, stop) in enumerate(pairwise(np.cumsum([0, *sizes]))):
        wanted = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
        if len(wanted):
            table = file.read_row_group(group, columns=list(names)).take(wanted - start)
            yield from zip(*(table[name].to_pylist() for name in names), strict=True)


def _picked(given: Iterator[Picture], rows: RowIds, total: int) -> Iterator[Picture]:
    """Those of the rows, out of one for each of all rows."""
    wanted, at = set(rows.tolist()), 0
    last = int(rows[-1]) if len(rows) else -1
    for at, picture in enumerate(given):
        if at >= total:
            raise _changed("more")
        if at in wanted:
            yield picture
        if at == last and last < total - 1:
            return
    if at < last:
        raise _changed("fewer")


def _changed(few: str) -> DataError:
    return DataError(f"the source now has {few} pictures than captions: it has changed meanwhile", "run again")
