"""Signs of life: what an attempt wrote last, and when."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from infra.ledger import Entry
from xclr.job import FAILURE, PROGRESS, RESULT
from xclr.shards import SHARDS
from xclr.store import MANIFEST
from xclr.training.spool import SPOOL


def last_sign(entry: Entry, out: Path) -> datetime:
    """When an attempt ended: as written, else when it last wrote something."""
    if entry.ended is not None:
        return entry.ended
    written = [out / name for name in (MANIFEST, RESULT, FAILURE, PROGRESS, SPOOL)]
    written += (out / SHARDS).glob(f"*.{PROGRESS}")
    if entry.log is not None:
        written.append(Path(entry.log))
    times = [datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in written if path.exists()]
    return max([*times, entry.claimed])
