"""Which captions are near a free text?"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch
import torch.nn.functional as F

from xclr.graph.embed import distinct, read_captions
from xclr.graph.encoder import Encoder
from xclr.graph.knn import TopK, merge_topk, topk

ROWS_AT_ONCE = 1 << 18
BLOCK = 4096


class Near(NamedTuple):
    """A caption, the first row that has it, and its cosine with the text."""

    row_id: int
    similarity: float
    caption: str


def nearest_captions(text: str, captions: Path, embeddings: Path, encoder: Encoder, k: int) -> list[Near]:
    """The k distinct captions of captions.parquet nearest to a text, by the vectors of vectors.npy, nearest first."""
    rows = distinct(read_captions(captions / "captions.parquet", ("row_id", "dup_of")))
    stored = np.load(embeddings / "vectors.npy", mmap_mode="r")
    asked = torch.from_numpy(encoder.encode([text])).float()
    k = min(k, len(rows))
    best = TopK(torch.full((1, k), -1), torch.full((1, k), torch.nan))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[start : start + ROWS_AT_ONCE]
        found = topk(asked, torch.from_numpy(stored[part]).float(), min(k, len(part)), block=BLOCK)
        pads = (0, k - found.ids.shape[1])
        ids, sims = F.pad(found.ids + start, pads, value=-1), F.pad(found.sims, pads, value=torch.nan)
        best = merge_topk(best, TopK(ids, sims))
    ids = rows[best.ids[0].numpy()]
    wanted = pc.field("row_id").isin(pa.array(ids))
    table = ds.dataset(captions / "captions.parquet").to_table(columns=["row_id", "caption"], filter=wanted)
    named = dict(zip(table["row_id"].to_pylist(), table["caption"].to_pylist(), strict=True))
    return [Near(row, sim, named[row]) for row, sim in zip(ids.tolist(), best.sims[0].tolist(), strict=True)]
