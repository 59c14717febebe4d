"""The images stage: every picture obtained, judged, accounted for and packed into tars that other tools read.

A shard is a folder of `xclr.shards` with pictures.tar and rows.parquet; the stage's runner makes those that are missing
and puts all together. A later generation obtains only rows that were lost and links the tars of the one before.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xclr import schema, shards
from xclr.errors import DataError
from xclr.images import generations
from xclr.images.equal import Equal
from xclr.images.given import Work, columns, pictures, tars, where_of
from xclr.images.obtain import Breaker, Probe, obtain
from xclr.images.outcome import Limits, Outcome
from xclr.images.stages import ImagesConfig
from xclr.images.workers import Workers
from xclr.recipe import SOURCES, DataConfig, host_of
from xclr.stage import Produced, Progress, Stage

TAR, ROWS = "pictures.tar", "rows.parquet"  # of a shard
MOST_TRIES = 127  # that the table can tell
REFUSING = frozenset({"http_429", "http_5xx"})  # servers that may give it later
FIRST, SHOWN = 100, 3  # rows whose servers are looked at, and servers that are named
BATCH = 1 << 17  # rows in memory at once

Sample = tuple[int, str, Outcome]  # row id, caption and picture


def run(stage: Stage[ImagesConfig], out: Path, progress: Progress) -> Produced:
    """Write shard-00000.tar ... (<row_id>.<suffix> and .txt, the WebDataset layout), images.parquet, accounts.parquet.

    images.parquet has one row for every captions row, whatever the picture is like; `offset` and `size` locate the
    encoded picture inside the shard. `bytes`, `sha256`, `width` and `height` are of the picture as it was received. A
    run that was interrupted makes only the shards that are missing. Raises DataError when the network is down, when no
    picture can be used, or when the source has changed meanwhile.
    """
    work = Work.of(stage)
    missing = shards.missing(out, work.number)
    _make(stage, out, missing, Told(progress, *_so_far(out, work, set(range(work.number)) - set(missing))))
    _link(stage, out, work)
    about = {"digest": stage.digest, "config": stage.identity}
    stats = _assemble(stage, out, work, about)
    _check(stage, out, stats)
    return Produced(("images.parquet", "accounts.parquet", *tars(out)), stats, (shards.SHARDS,))


def run_shard(stage: Stage[ImagesConfig], out: Path, shard: int, progress: Progress) -> None:
    """Make one shard, for `run` to find; the progress is that of its own rows."""
    _make(stage, out, (shard,), Told(progress, 0, len(Work.of(stage).piece(shard)), 0))


def limits_of(data: DataConfig) -> Limits:
    """How the recipe wants pictures to be fetched."""
    given = data.download
    return Limits(
        allow_hosts=data.reachable, in_flight=given.connections, per_host=given.per_host, connect_s=given.connect_s,
        read_s=given.read_s, total_s=given.total_s, tries=given.tries, most_bytes=given.most_bytes, robots=given.robots,
        proxy=given.proxy,
    )  # fmt: skip


class Told:
    """Progress from where it stood: rows done, rows in all, usable pictures among the first."""

    def __init__(self, progress: Progress, done: int, total: int, ok: int) -> None:
        self.progress, self.done, self.total, self.ok = progress, done, total, ok

    def following(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        """The samples, each counted once it was used."""
        for sample in samples:
            yield sample
            judged = sample[2].judged
            self.done += 1
            self.ok += judged is not None and judged.columns["status"] == "ok"
            self.progress(self.done, self.total, self.ok)


def _make(stage: Stage[ImagesConfig], out: Path, numbers: Sequence[int], told: Told) -> None:
    """Obtain the pictures of some shards in one stream, so that none waits for another's last picture."""
    work, data = Work.of(stage), stage.config.data
    rows = np.concatenate([work.rows[:0], *(work.piece(shard) for shard in numbers)])
    texts = columns(stage.inputs["captions"].path / "captions.parquet", rows, ["caption"])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    probe = Probe()
    with (
        Workers(
            data.download.workers or cores, data.shortest_edge, apart=SOURCES[data.source].path is not None
        ) as workers,
        closing(obtain(pictures(stage, rows), limits_of(data), workers, probe)) as outcomes,
    ):
        watched = Breaker(probe).watch(outcomes)
        samples = told.following(
            (int(row), text, each) for row, (text,), each in zip(rows, texts, watched, strict=True)
        )
        for shard in numbers:
            place = shards.Shard(out, shard, work.size)
            with shards.writing(place) as folder:
                _pack(folder, work.first + shard, islice(samples, len(work.piece(shard))))
        next(samples, None)  # there is none, or an error


def _so_far(out: Path, work: Work, ready: set[int]) -> tuple[int, int, int]:
    """Rows of finished shards, of all, and usable pictures among the first."""
    done = sum(len(work.piece(shard)) for shard in ready)
    counts: Counter[str] = Counter()
    for shard in ready:
        counts.update(pq.read_table(shards.folder(out, shard) / ROWS, columns=["status"])["status"].to_pylist())
    return done, len(work.rows), counts["ok"]


def _pack(folder: Path, number: int, samples: Iterator[Sample]) -> None:
    """Write a shard: its tar, and the rows of the images table that describe it."""
    rows = []
    with (folder / TAR).open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for row_id, text, outcome in samples:
            judged = outcome.judged
            row = {
                "row_id": row_id,
                "attempt": min(outcome.attempt, MOST_TRIES),
                "http": outcome.http,
                "status": outcome.status,
            }
            if judged is None:
                row["error"] = outcome.error
            else:
                row |= judged.columns
            if judged is not None and row["status"] == "ok":
                data = outcome.data if judged.stored is None else judged.stored
                offset = _add(tar, f"{row_id:09d}.{judged.suffix}", data)
                _add(tar, f"{row_id:09d}.txt", text.encode())
                row |= {"shard": number, "offset": offset, "size": len(data)}
            rows.append(row)
    schema.write(pa.Table.from_pylist(rows, schema.IMAGES), folder / ROWS, schema.IMAGES, {})


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append a file; where its content begins."""
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
    return tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _link(stage: Stage[ImagesConfig], out: Path, work: Work) -> None:
    """Put the tars of the generation before, and of the shards, beside the table; each stays where it was, too."""
    if before := stage.inputs.get("before"):
        for name in tars(before.path):
            _same_file(before.path / name, out / name)
    for shard in range(work.number):
        _same_file(shards.folder(out, shard) / TAR, out / f"shard-{work.first + shard:05d}.tar")


def _same_file(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


class Count(NamedTuple):
    """Rows by shard of the captions and status."""

    size: int
    counts: npt.NDArray[np.int64]  # [shards, statuses]

    @classmethod
    def none(cls, total: int, size: int) -> Count:
        """Nothing counted yet."""
        return cls(size, np.zeros((-(-total // size), len(generations.STATUSES)), dtype=np.int64))

    def add(self, table: pa.Table) -> None:
        """Count some rows of the images table."""
        status = pc.index_in(table["status"], pa.array(generations.STATUSES)).to_numpy()
        np.add.at(self.counts, (table["row_id"].to_numpy() // self.size, status), 1)

    def table(self) -> pa.Table:
        """The accounts table."""
        shard, status = np.nonzero(self.counts)
        names = [generations.STATUSES[each] for each in status]
        return pa.table([shard.astype(np.int32), names, self.counts[shard, status]], schema=schema.ACCOUNTS)

    def stats(self) -> dict[str, int]:
        """Rows, and of each status that there is, in the order of their names."""
        totals = dict(zip(generations.STATUSES, self.counts.sum(axis=0).tolist(), strict=True))
        return {"rows": sum(totals.values())} | {name: totals[name] for name in sorted(totals) if totals[name]}


def _assemble(stage: Stage[ImagesConfig], out: Path, work: Work, about: dict[str, Any]) -> dict[str, Any]:
    """Join the shards' rows to images.parquet; rows by status, and what was downloaded where anything was."""
    captions = stage.inputs["captions"].path
    equal = Equal.among(_all_parts(stage, out, work), captions)
    total = pq.read_metadata(captions / "captions.parquet").num_rows
    count, downloaded = Count.none(total, work.size), 0
    with schema.writing(out / "images.parquet", schema.IMAGES, about) as write:
        for part in _all_parts(stage, out, work):
            table = equal.left_out(part, stage.config.data.most_equal)
            write(table)
            count.add(table)
            downloaded += pc.sum(table.filter(pc.is_valid(table["http"]))["bytes"]).as_py() or 0
    schema.write(count.table(), out / "accounts.parquet", schema.ACCOUNTS, about)
    return count.stats() | ({"downloaded_bytes": downloaded} if downloaded else {}) | equal.stats(captions)


def _all_parts(stage: Stage[ImagesConfig], out: Path, work: Work) -> Iterator[pa.Table]:
    """The rows of the shards, or those of the generation before with what was tried again."""
    return _merged(stage, out, work) if "before" in stage.inputs else _parts(out, work)


def _parts(out: Path, work: Work) -> Iterator[pa.Table]:
    for shard in range(work.number):
        yield schema.read(shards.folder(out, shard) / ROWS, schema.IMAGES)


def _merged(stage: Stage[ImagesConfig], out: Path, work: Work) -> Iterator[pa.Table]:
    """The table of the generation before, in parts, with the new rows of what was tried again."""
    new = pa.concat_tables(_parts(out, work))
    ids = new["row_id"].to_numpy()
    for batch in pq.ParquetFile(stage.inputs["before"].path / "images.parquet").iter_batches(BATCH):
        old = pa.Table.from_batches([batch])
        rows = old["row_id"].to_numpy()
        start, stop = np.searchsorted(ids, [rows[0], rows[-1] + 1])
        again = np.isin(rows, ids[start:stop])
        tried = pc.add(
            old.filter(pa.array(again))["attempt"].cast(pa.int16()), new[start:stop]["attempt"].cast(pa.int16())
        )
        tries = pc.min_element_wise(tried, pa.scalar(MOST_TRIES, pa.int16())).cast(pa.int8())
        later = new[start:stop].select(schema.IMAGES.names)
        later = later.set_column(schema.IMAGES.names.index("attempt"), schema.IMAGES.field("attempt"), tries)
        kept = old.filter(pa.array(~again)).cast(schema.IMAGES)
        yield pa.concat_tables([kept, later.cast(schema.IMAGES)]).sort_by("row_id")


def _check(stage: Stage[ImagesConfig], out: Path, stats: dict[str, Any]) -> None:
    """Raise DataError when no picture can be used, and say so when most cannot."""
    usable, total = stats.get("ok", 0), stats["rows"]
    lost = sorted(
        ((stats[each], each) for each in generations.STATUSES if each != "ok" and each in stats), reverse=True
    )
    said = ", ".join(f"{count:,} {status}" for count, status in lost)
    if not usable:
        why = pq.ParquetFile(out / "images.parquet").read_row_group(0, columns=["error"]).column("error")[0]
        where = where_of(next(pictures(stage, np.zeros(1, dtype=np.int64))))
        shutil.rmtree(out / shards.SHARDS)  # of no use: a run after the remedy tries every picture again
        raise DataError(
            f"none of the {total:,} pictures can be used: {said}; the first: {why}{where}",
            _remedy(stage, {status for _, status in lost}),
        )
    if 2 * usable < total:
        print(f"only {usable:,} of {total:,} pictures can be used: {said}", file=sys.stderr)


def _remedy(stage: Stage[ImagesConfig], statuses: Collection[str]) -> str:
    """What helps against a set of statuses that are not ok."""
    if not REFUSING.issuperset(statuses):
        return "mend the image column (data.image_column), or what keeps its pictures from being read, and run again"
    rows = np.arange(min(FIRST, stage.config.data.shard), dtype=np.int64)
    given = pictures(stage, rows[: pq.read_metadata(stage.inputs["captions"].path / "captions.parquet").num_rows])
    hosts = list(dict.fromkeys(host_of(each) for each in given if isinstance(each, str)))
    named = ", ".join(hosts[:SHOWN]) + ", ..." * (len(hosts) > SHOWN)
    return f"the servers answer, and refuse: {named}. Run again later, or ask less at once: data.download.per_host=1"
