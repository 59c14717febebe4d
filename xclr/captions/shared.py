"""What captions artifacts hold beside the captions: which rows show one picture, and what people call the rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

SHARED, NAMES, SCENES = "shared_pictures.parquet", "names.parquet", "scenes.parquet"


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


def factors_of(captions: Path) -> dict[str, npt.NDArray[np.int64]] | None:
    """What is true of each row of drawn scenes: by factor the place of its value in FACTORS [n]; None for others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from xclr import schema
    from xclr.recipe.scenes import FACTORS

    if not (captions / SCENES).exists():
        return None
    table = schema.read(captions / SCENES, schema.SCENES, ["row_id", *FACTORS]).sort_by("row_id")
    return {
        name: np.asarray(pc.index_in(table[name], pa.array(values)).to_numpy(), dtype=np.int64)
        for name, values in FACTORS.items()
    }


def once(captions: Path, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of sorted rows [n] of a captions artifact the first with each picture."""
    if not (captions / SHARED).exists():
        return rows
    return rows[np.sort(np.unique(picture_of_row(captions, 0)[rows], return_index=True)[1])]
