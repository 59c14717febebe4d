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
