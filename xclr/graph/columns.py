"""Columns of a Parquet file that the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xclr.errors import DataError
from xclr.graph.check import Numbers
from xclr.graph.embed import RowIds

Column: TypeAlias = "pa.ChunkedArray[Any] | pa.Array[Any]"
EDGE = ("src", "dst", "sim")


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns; raises DataError where it is none or lacks one."""
    try:
        there = pq.read_schema(path).names
        missing = [name for name in columns or () if name not in there]
        if missing:
            raise DataError(
                f"{path} has no column {missing[0]!r}, but " + ", ".join(there), "name its columns src, dst, sim"
            )
        return pq.read_table(path, columns=columns and list(columns))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a Parquet file", "convert it, for example with pandas' to_parquet") from error


def numbers(column: pa.ChunkedArray[Any]) -> Numbers:
    """A column of similarities [m], NaN where there is none; raises DataError where it holds no numbers."""
    try:
        return np.asarray(pc.cast(column, pa.float64()).to_numpy(), dtype=np.float64)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"a similarity is a number, and not {column.type}", "write it as float32") from error


def places(given: Column, names: pa.Array[Any]) -> RowIds:
    """The first place [m] of each in the names, -1 where it is none of them."""
    found = pc.index_in(pc.cast(given, pa.string()), value_set=names, skip_nulls=True)
    return np.asarray(pc.fill_null(found, -1).to_numpy(), dtype=np.int64)
