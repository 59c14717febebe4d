"""What captions artifacts hold beside the captions: which rows show one picture, and what people call the rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

SHARED, NAMES = "shared_pictures.parquet", "names.parquet"


def picture_of_row(captions: Path, rows: int) -> npt.NDArray[np.int64]:
    """The first row with the picture of each row of a captions artifact, [n]; itself where no picture has two."""
    from xclr import schema

    if not (captions / SHARED).exists():
        return np.arange(rows)
    table = schema.read(captions / SHARED, schema.SHARED_PICTURES).sort_by("row_id")
    return np.asarray(table["first"].to_numpy(), dtype=np.int64)


def names_of(captions: Path) -> pa.Table | None:
    """The id and path of each row of a captions artifact (schema NAMES), sorted; None where it has neither."""
    from xclr import schema

    return schema.read(captions / NAMES, schema.NAMES).sort_by("row_id") if (captions / NAMES).exists() else None


def once(captions: Path, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of sorted rows [n] of a captions artifact the first with each picture."""
    if not (captions / SHARED).exists():
        return rows
    return rows[np.sort(np.unique(picture_of_row(captions, 0)[rows], return_index=True)[1])]
