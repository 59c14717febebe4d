"""Which rows of the captions show one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

SHARED = "shared_pictures.parquet"


def picture_of_row(captions: Path, rows: int) -> npt.NDArray[np.int64]:
    """The first row with the picture of each row of a captions artifact, [n]; itself where no picture has two."""
    from xclr import schema

    if not (captions / SHARED).exists():
        return np.arange(rows)
    table = schema.read(captions / SHARED, schema.SHARED_PICTURES).sort_by("row_id")
    return np.asarray(table["first"].to_numpy(), dtype=np.int64)


def once(captions: Path, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of sorted rows [n] of a captions artifact the first with each picture."""
    if not (captions / SHARED).exists():
        return rows
    return rows[np.sort(np.unique(picture_of_row(captions, 0)[rows], return_index=True)[1])]
