"""Pictures that many addresses show: what servers send in the place of what is gone, each with a caption of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from xclr.captions.shared import once
from xclr.images.given import columns
from xclr.recipe import host_of

MANY = 50  # addresses of one picture from which on people are told
HOSTS, ROWS = 5, 10_000  # that are named, and looked at for them
REPEATED = "repeated"  # the status of what data.most_equal leaves out
PREFIX = 16  # hexadecimal digits of a SHA-256 that pictures are told apart by


class Equal(NamedTuple):
    """Rows whose picture was downloaded and can be used, sorted, and how many addresses show its like, int64 [n]."""

    rows: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]

    @classmethod
    def among(cls, parts: Iterable[pa.Table], captions: Path) -> Equal:
        """Look at the parts of an images table; of rows that share one address the first counts."""
        found = [_downloaded(each) for each in parts]
        rows = np.concatenate([each for each, _ in found] or [np.zeros(0, np.int64)])
        pictures = np.concatenate([each for _, each in found] or [np.zeros(0, f"S{PREFIX}")])
        names, places = np.unique(pictures, return_inverse=True)
        first = np.isin(rows, once(captions, rows))
        return cls(rows, np.bincount(places[first], minlength=len(names))[places])

    def left_out(self, table: pa.Table, most: int | None) -> pa.Table:
        """Rows of an images table, those whose picture more than `most` addresses show as not usable."""
        if most is None:
            return table
        ids = table["row_id"].to_numpy()
        known, too_many = np.isin(ids, self.rows), np.isin(ids, self.rows[self.times > most])
        status = pc.if_else(pa.array(known), pa.scalar("ok"), table["status"])
        status = pc.if_else(pa.array(too_many), pa.scalar(REPEATED), status)
        why = pa.scalar(f"more than {most} addresses show this picture")
        error = pc.if_else(
            pa.array(too_many), why, pc.if_else(pa.array(known), pa.scalar(None, pa.string()), table["error"])
        )
        for name, column in (("status", status), ("error", error)):
            at = table.schema.get_field_index(name)
            table = table.set_column(at, table.schema.field(at), column)
        return table

    def stats(self, captions: Path) -> dict[str, Any]:
        """Rows whose picture MANY addresses show or more, and the hosts of the most; empty for none."""
        if not (self.times >= MANY).any():
            return {}
        rows = self.rows[self.times >= MANY]
        urls = (url for (url,) in columns(captions / "captions.parquet", rows[:ROWS], ["url"]))
        hosts = Counter(host_of(url) for url in urls).most_common(HOSTS)
        told = ", ".join(f"{host} ({number:,})" for host, number in hosts)
        return {"equal": len(rows), "equal_most": int(self.times.max()), "equal_hosts": told}


def _downloaded(table: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bytes_]]:
    """Row ids of what was downloaded and is a picture, and the beginning of each one's SHA-256."""
    there = table.filter(pc.is_valid(table["http"])).filter(pc.field("status").isin(["ok", REPEATED]))
    prefix = pc.utf8_slice_codeunits(there["sha256"], 0, PREFIX).to_numpy(zero_copy_only=False)
    return there["row_id"].to_numpy().astype(np.int64), prefix.astype(f"S{PREFIX}")
