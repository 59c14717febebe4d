"""A sweep's run with what its cells came to, read from HOME."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from infra.home.runs import RunRecord
from infra.home.sweeps import cell_lines
from infra.ledger import Book
from xclr import schema
from xclr.report.sweep import Swept
from xclr.store import Store
from xclr.sweep.layout import Ref

SCORES = pa.schema([*schema.SCORES, pa.field("cell", pa.int64(), nullable=False)])


def read_swept(home: Path, record: RunRecord) -> Swept:
    """A sweep's run with what its cells came to; suites that are not in the store are left out."""
    store, book, lines = Store(home), Book(home), cell_lines(home, record)
    tables = [_scores(store, ref, place) for place, line in enumerate(lines) for ref in line.cell.suites]
    digests = dict.fromkeys([*record.digests, *(ref.digest for line in lines for ref in line.cell.stages)])
    usages = {digest: usage for digest in digests if (usage := book.usage(digest)) is not None}
    return Swept(record, lines, pa.concat_tables([SCORES.empty_table(), *tables]), usages)


def _scores(store: Store, suite: Ref, place: int) -> pa.Table:
    artifact = store.find(suite.output)
    if artifact is None:
        return SCORES.empty_table()
    store.check(artifact)
    table = schema.read(artifact.path / "scores.parquet", schema.SCORES).select(schema.SCORES.names)
    return table.append_column(SCORES.field("cell"), pa.array([place] * table.num_rows, pa.int64())).cast(SCORES)
